package atomicfile

import (
	"encoding/json"
	"errors"
	"fmt"
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
