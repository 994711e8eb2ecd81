package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// image is what a machine boots: a kernel or a disk.
type image struct {
	kernel, initrd string // paths
	cmdline        string
	disk, format   string // path, qcow2 or raw
}

// maxCmdline is the longest command line that Linux takes on x86, in bytes.
const maxCmdline = 2048

// diskFormats are told by the ending. QEMU could tell them by the contents, but
// then a guest could, with the right bytes on a raw disk.
var diskFormats = []struct{ ending, format string }{{".qcow2", "qcow2"}, {".raw", "raw"}, {".img", "raw"}}

// validImage leaves no way out of the directory of images.
var validImage = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// imageOf returns the image of a name that a caller gave.
func imageOf(dir, name string) (image, error) {
	if !validImage.MatchString(name) {
		return image{}, jsonrpc.InvalidParams("image", "may have letters, digits, '.', '_' and '-', and begins with a letter or digit")
	}
	base := filepath.Join(dir, name)
	if isFile(filepath.Join(base, "kernel")) {
		return kernelImage(base)
	}
	for _, f := range diskFormats {
		if isFile(base + f.ending) {
			return image{disk: base + f.ending, format: f.format}, nil
		}
	}
	return image{}, jsonrpc.InvalidParams("image", fmt.Sprintf("%q is not on this node, which has %s", name, listImages(dir)))
}

func kernelImage(base string) (image, error) {
	img := image{kernel: filepath.Join(base, "kernel")}
	if path := filepath.Join(base, "initrd"); isFile(path) {
		img.initrd = path
	}
	path := filepath.Join(base, "cmdline")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return image{}, err
	}
	img.cmdline = strings.TrimSpace(string(text))
	if len(img.cmdline) > maxCmdline || strings.ContainsAny(img.cmdline, "\x00\n") {
		return image{}, fmt.Errorf("%s must be one line of at most %d bytes", path, maxCmdline)
	}
	return img, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// listImages names some of the images, for who has named one that is not there.
func listImages(dir string) string {
	const most = 10
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "none that can be read"
	}
	var names []string
	for _, entry := range entries {
		name := entry.Name()
		if isFile(filepath.Join(dir, name, "kernel")) {
			names = append(names, name)
		}
		for _, f := range diskFormats {
			if base, ok := strings.CutSuffix(name, f.ending); ok && entry.Type().IsRegular() {
				names = append(names, base)
			}
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !validImage.MatchString(name) })
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
