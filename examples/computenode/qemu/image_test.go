package qemu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

func TestImages(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "images")
	for path, text := range map[string]string{
		"images/full/kernel": "k", "images/full/initrd": "i", "images/full/cmdline": "console=ttyS0 quiet\n",
		"images/bare/kernel": "k",
		"images/no/initrd":   "i",
		"images/odd/kernel":  "k", "images/odd/cmdline": "two\nlines",
		"images/a.raw": "", "images/b.img": "", "images/c.d.qcow2": "", "images/e.iso": "",
		"images/dir.raw/file": "", "outside.raw": "",
	} {
		path = filepath.Join(top, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, want := range map[string]image{
		"full": {kernel: at("full/kernel"), initrd: at("full/initrd"), cmdline: "console=ttyS0 quiet"},
		"bare": {kernel: at("bare/kernel")},
		"a":    {disk: at("a.raw"), format: "raw"},
		"b":    {disk: at("b.img"), format: "raw"},
		"c.d":  {disk: at("c.d.qcow2"), format: "qcow2"},
	} {
		if got, err := imageOf(dir, name); got != want || err != nil {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
	if _, err := imageOf(dir, "odd"); err == nil || !strings.Contains(err.Error(), "one line") {
		t.Errorf("odd: %v", err)
	}
	for _, name := range []string{
		"", ".", "..", "../outside", "..%2foutside", "/etc/passwd", "full/../a", "a\x00", "-a", "full/",
		strings.Repeat("a", 200), "none", "no", "e", "dir", "a.raw",
	} {
		_, err := imageOf(dir, name)
		if e := (*jsonrpc.Error)(nil); !errors.As(err, &e) || e.Code != jsonrpc.CodeInvalidParams || !strings.Contains(e.Message, "image") {
			t.Errorf("%.20q: %v", name, err)
		}
	}
	if names := listImages(dir); names != "a, b, bare, c.d, full, odd" {
		t.Errorf("listed: %s", names)
	}
}
