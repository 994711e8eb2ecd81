package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReadJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var got struct{ Name string }
	if _, err := ReadJSON(path, 1, &got); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, new(*fs.PathError)) {
		t.Errorf("a file that is not there: %v", err)
	}
	for content, want := range map[string]error{`{"version":2,"name":"x"}`: ErrNewer, `{"version":1,"name":7}`: nil, `{"name":"x"}`: nil, `{`: nil} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadJSON(path, 1, &got); err == nil || want != nil && !errors.Is(err, want) || errors.As(err, new(*fs.PathError)) {
			t.Errorf("%s: %v", content, err)
		}
	}
	const good = `{"version":1,"name":"y"}`
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if content, err := ReadJSON(path, 1, &got); err != nil || string(content) != good || got.Name != "y" {
		t.Errorf("%q, %+v, %v", content, got, err)
	}
}

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
