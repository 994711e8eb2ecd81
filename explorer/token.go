package explorer

import "time"

// Token is a bearer token as it is kept: by its hash alone.
type Token struct {
	ID        string    `json:"id"` // short, for listing and revoking
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// CreateToken makes a token in a master's data directory and returns it with
// its secret, which is not kept and cannot be shown again. A running master
// knows it at once.
func CreateToken(dataDir, name string) (t Token, secret string, err error) { panic("stub") }

// ListTokens returns the tokens in a master's data directory, oldest first.
func ListTokens(dataDir string) ([]Token, error) { panic("stub") }

// RevokeToken removes the token of the given id or name and returns it. A
// running master refuses it at once. It returns [crdtstore.ErrNotFound] where
// there is none.
func RevokeToken(dataDir, idOrName string) (Token, error) { panic("stub") }
