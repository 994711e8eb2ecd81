package p2p

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// strangers are contacts of masters that do not exist, with more addresses than are kept.
func strangers(t *testing.T, n int) (out []Contact) {
	t.Helper()
	for range n {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		var addrs []string
		for p := range 40 {
			addrs = append(addrs, fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", p+1))
		}
		out = append(out, Contact{ID: id.String(), Addrs: addrs})
	}
	return out
}

func TestHearsayIsBoundedAndKeptUpToDate(t *testing.T) {
	m, met := still(t, "s"), still(t, "s")
	if err := m.finds(t, met); err != nil {
		t.Fatal(err)
	}
	many := strangers(t, maxIntroduced+20)
	m.Learn(many)
	if got := m.Contacts(); len(got) != maxIntroduced+1 || len(got[0].Addrs) > 16 {
		t.Fatalf("learnt %d contacts, the first with %d addresses", len(got), len(got[0].Addrs))
	}
	if m.Knows(decode(t, many[maxIntroduced].ID)) {
		t.Error("one too many is known")
	}

	// Those that are known move all the same, met or not.
	moved := []string{"/ip4/192.0.2.7/tcp/9004"}
	m.Learn([]Contact{{ID: many[0].ID, Addrs: moved}, {ID: met.host.ID().String(), Addrs: moved}})
	at := map[string]string{}
	for _, c := range m.Contacts() {
		at[c.ID] = fmt.Sprint(c.Addrs)
	}
	if want := fmt.Sprint(moved); at[many[0].ID] != want || at[met.host.ID().String()] != want {
		t.Errorf("they are looked for at %s and %s", at[many[0].ID], at[met.host.ID().String()])
	}

	// What was not named for a minute makes room, and no other.
	old := decode(t, many[7].ID)
	m.mu.Lock()
	m.contacts[old].named = time.Now().Add(-2 * introducedAge)
	m.mu.Unlock()
	m.Learn(many[maxIntroduced:])
	if m.Knows(old) || !m.Knows(decode(t, many[maxIntroduced].ID)) || m.Knows(decode(t, many[maxIntroduced+1].ID)) {
		t.Error("the place of the one that nobody names any more was not given to the next")
	}
	if !m.Knows(met.host.ID()) {
		t.Error("a master that was met had to make room")
	}
}

func TestHearsayIsForgotten(t *testing.T) {
	m, met := still(t, "s"), still(t, "s")
	if err := m.finds(t, met); err != nil {
		t.Fatal(err)
	}
	two := strangers(t, 2)
	m.Learn(two)
	heard := func(id string) bool { return id == two[1].ID }
	m.ForgetUnheard(time.Now(), heard)
	if !m.Knows(decode(t, two[0].ID)) {
		t.Error("forgotten at once")
	}
	m.ForgetUnheard(time.Now().Add(2*introducedAge), heard)
	if m.Knows(decode(t, two[0].ID)) || !m.Knows(decode(t, two[1].ID)) || !m.Knows(met.host.ID()) {
		t.Error("other masters were forgotten than the one that nobody names and nobody heard")
	}
}

// However many masters are known, the handshake has room for its list of them.
func TestVouchedFitAFrame(t *testing.T) {
	m, late := still(t, "s"), still(t, "s")
	m.Learn(strangers(t, maxIntroduced))
	b, err := json.Marshal(done{Proof: make([]byte, 32), Masters: m.introduced(late.host.ID())})
	if err != nil || len(b) > maxHello {
		t.Errorf("the list takes %d bytes of %d, %v", len(b), maxHello, err)
	}
	if err := m.finds(t, late); err != nil {
		t.Fatal(err)
	}
	await(t, "the other side", late.joined)
	if len(late.Contacts()) < 10 {
		t.Errorf("it has heard of %d", len(late.Contacts()))
	}
}

func decode(t *testing.T, id string) peer.ID {
	t.Helper()
	p, err := peer.Decode(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
