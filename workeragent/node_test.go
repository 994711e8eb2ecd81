package workeragent

import (
	"crypto/ed25519"
	"reflect"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/host"
)

// Whatever changes in the profile is sent, whichever field it is, and nothing else is.
func TestEveryFieldOfTheProfileIsSent(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	profile := reflect.TypeFor[record.Profile]()
	for i := range profile.NumField() {
		name := profile.Field(i).Name
		n := newNode("n", key, 1, record.Profile{})
		n.setFigures(host.Figures{})
		n.open()
		was := n.account.Load()
		n.setFigures(host.Figures{})
		if n.account.Load() != was {
			t.Fatal("an account is made although nothing has changed")
		}
		n.mu.Lock()
		set(t, name, reflect.ValueOf(&n.profile).Elem().Field(i))
		n.update()
		n.mu.Unlock()
		now := n.account.Load()
		if now == was {
			t.Errorf("%s has changed and is not sent", name)
		} else if !reflect.DeepEqual(now.Profile, n.profile) {
			t.Errorf("%s has changed, and is sent as it was", name)
		}
	}
}

// set gives a field a value that it did not have.
func set(t *testing.T, name string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Struct:
		set(t, name, v.Field(0))
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.ValueOf("x")))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"x": "y"}))
	default:
		t.Fatalf("the test has no value for %s, a %s", name, v.Kind())
	}
}
