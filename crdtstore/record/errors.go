package record

import "fmt"

// FieldError says which field of a value from outside cannot be taken, and why.
// Nothing was changed when it is returned.
type FieldError struct {
	Field   string // as it is called in JSON, with dots and indices: "vms[3].sid"
	Problem string // what is wrong and what would be right
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

func fieldErrorf(field, format string, args ...any) *FieldError {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// Refusals of an account for who sent it.
const (
	RefusedRemoved   = "removed"       // the boot was removed by an operator
	RefusedExpired   = "expired"       // the boot was silent for longer than retention
	RefusedUnsigned  = "unsigned"      // the node signs, or signing is required
	RefusedOtherKey  = "other_key"     // the node id belongs to another key
	RefusedSignature = "bad_signature" // the signature does not fit the account
)

// RefusedError is returned for an account whose sender may not speak for the
// node. Nothing was changed.
type RefusedError struct {
	NodeID string
	Reason string // one of the Refused constants
	Hint   string // what the person behind the sender can do
}

// Refused is the error for an account, or a sign of life, of a boot that the removal
// hides.
func (r Removal) Refused(node string) *RefusedError {
	if r.Reason == ReasonExpired {
		return &RefusedError{node, RefusedExpired,
			"this node was silent for so long that it was removed; register it with a greater boot"}
	}
	return &RefusedError{node, RefusedRemoved,
		"an operator removed this node; restart the agent to register it anew"}
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("node %s refused (%s): %s", e.NodeID, e.Reason, e.Hint)
}
