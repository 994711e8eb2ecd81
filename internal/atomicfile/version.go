package atomicfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// ErrNewer: a file was written by a newer program. It may be good, so it must be left
// as it is.
var ErrNewer = errors.New("written by a newer program")

// CheckVersion looks at the field "version" of a JSON file, whatever else is in it:
// ErrNewer where it is greater than the one that is known, another error where there
// is none.
func CheckVersion(content []byte, known int) error {
	var head struct {
		Version int `json:"version"`
	}
	switch err := json.Unmarshal(content, &head); {
	case err != nil:
		return err
	case head.Version > known:
		return fmt.Errorf("%w: version %d, this one reads %d; use the program that wrote it, or a newer one", ErrNewer, head.Version, known)
	case head.Version < 1:
		return errors.New("it has no version")
	}
	return nil
}

// ReadJSON reads a JSON file with a version into a struct, and returns what the file holds.
// Errors: those of the file system, which are an [fs.PathError]; that of CheckVersion; and
// those of the content.
func ReadJSON(path string, known int, into any) (content []byte, err error) {
	content, err = os.ReadFile(path)
	if err == nil {
		err = CheckVersion(content, known)
	}
	if err == nil {
		err = json.Unmarshal(content, into)
	}
	return content, err
}
