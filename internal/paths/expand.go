package paths

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
)

const socketDir = "$HERO_SOCKET_DIR"

// Expand expands a leading "~" to the home directory and a leading "$HERO_SOCKET_DIR" to
// that variable, or to "~/hero/var/sockets" where it is not set. The home directory is
// $HOME, or where that is not set the one that the system's list of users tells. All else
// in a path stands for itself.
func Expand(path string) (string, error) {
	if rest, ok := strings.CutPrefix(path, socketDir); ok && (rest == "" || rest[0] == '/') {
		dir := os.Getenv(socketDir[1:])
		if dir == "" {
			dir = "~/hero/var/sockets"
		}
		path = dir + rest
	}
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || rest[0] == '/') {
		home, err := home()
		if err != nil {
			return "", fmt.Errorf("cannot expand %q: %w", path, err)
		}
		path = home + rest
	}
	return path, nil
}

// Absolute is Expand, with a relative path taken from the working directory. An empty path
// stays empty.
func Absolute(path string) (string, error) {
	path, err := Expand(path)
	if err != nil || path == "" {
		return path, err
	}
	return filepath.Abs(path)
}

// home returns the home directory of the user.
func home() (string, error) {
	if dir := os.Getenv("HOME"); dir != "" {
		return dir, nil
	}
	if u, err := user.Current(); err == nil && u.HomeDir != "" {
		return u.HomeDir, nil
	}
	return "", errors.New("$HOME is not set, and the system knows no home directory of this user; name the path in full")
}
