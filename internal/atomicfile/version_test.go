package atomicfile

import (
	"errors"
	"testing"
)

func TestCheckVersion(t *testing.T) {
	for content, want := range map[string]string{
		`{"version":1}`: "known", `{"version":2,"x":[]}`: "known", ` {"x":null,"version":2} `: "known",
		`{"version":3}`: "newer", `{"version":99,"x":{"y":1}}`: "newer",
		``: "bad", `{}`: "bad", `[]`: "bad", `null`: "bad", `{"version":0}`: "bad", `{"version":-1}`: "bad",
		`{"version":"3"}`: "bad", `{"version":3`: "bad",
	} {
		got := "bad"
		switch err := CheckVersion([]byte(content), 2); {
		case err == nil:
			got = "known"
		case errors.Is(err, ErrNewer):
			got = "newer"
		}
		if got != want {
			t.Errorf("%s is %s, want %s", content, got, want)
		}
	}
}
