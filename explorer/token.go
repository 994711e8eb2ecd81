package explorer

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// tokenFile, in the data directory, holds the tokens of one master as JSON,
// readable by its user alone. Only hashes are in it.
const tokenFile = "tokens.json"

// tokenMark begins every token, so that scanners for leaked secrets can tell
// one when they see it.
const tokenMark = "hxp_"

const maxTokens = 1000

// tokensVersion is the version of the file.
const tokensVersion = 1

// keptTokens is what the file holds.
type keptTokens struct {
	Version int         `json:"version"`
	Tokens  []keptToken `json:"tokens"`
}

// Token is a bearer token as it is kept: by its hash alone.
type Token struct {
	ID        string    `json:"id"` // short, for listing and revoking
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// keptToken is a line of the file. SHA-256 without salt or stretching is right
// here because the secret is 256 random bits, not a password.
type keptToken struct {
	Token
	SHA256 string `json:"sha256"`
}

// CreateToken makes a token in a master's data directory and returns it with
// its secret, which is not kept and cannot be shown again. A running master
// knows it at once. Names are unique.
func CreateToken(dataDir, name string) (t Token, secret string, err error) {
	if name == "" || len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return t, "", configErrorf("name", "must have 1 to 128 printable characters")
	}
	var random [32]byte
	rand.Read(random[:])
	secret = tokenMark + base64.RawURLEncoding.EncodeToString(random[:])
	sum := sha256.Sum256([]byte(secret))
	t = Token{ID: hex.EncodeToString(sum[:4]), Name: name, CreatedAt: time.Now().UTC().Truncate(time.Second)}
	err = changeTokens(dataDir, func(kept []keptToken) ([]keptToken, error) {
		if len(kept) >= maxTokens {
			return nil, fmt.Errorf("there are %d tokens, which is the most; revoke one", len(kept))
		}
		if slices.ContainsFunc(kept, func(k keptToken) bool { return k.Name == name }) {
			return nil, configErrorf("name", "%q is taken; revoke that token first or choose another name", name)
		}
		return append(kept, keptToken{t, hex.EncodeToString(sum[:])}), nil
	})
	if err != nil {
		return Token{}, "", err
	}
	return t, secret, nil
}

// ListTokens returns the tokens in a master's data directory, oldest first.
func ListTokens(dataDir string) ([]Token, error) {
	dir, err := ExpandPath(dataDir)
	if err != nil {
		return nil, err
	}
	kept, err := readTokens(filepath.Join(dir, tokenFile))
	tokens := make([]Token, len(kept))
	for i, k := range kept {
		tokens[i] = k.Token
	}
	return tokens, err
}

// RevokeToken removes the token of the given id or name and returns it. A
// running master refuses it at once. It returns [crdtstore.ErrNotFound] where
// there is none.
func RevokeToken(dataDir, idOrName string) (t Token, err error) {
	err = changeTokens(dataDir, func(kept []keptToken) ([]keptToken, error) {
		i := slices.IndexFunc(kept, func(k keptToken) bool { return k.ID == idOrName || k.Name == idOrName })
		if i < 0 {
			return nil, fmt.Errorf("token %q: %w", idOrName, crdtstore.ErrNotFound)
		}
		t = kept[i].Token
		return slices.Delete(kept, i, i+1), nil
	})
	return t, err
}

func readTokens(path string) ([]keptToken, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// The version first: to a newer program the rest may mean something else, such as
	// what a token is good for.
	var head struct {
		Version int `json:"version"`
	}
	var kept keptTokens
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if head.Version != tokensVersion {
		return nil, fmt.Errorf("%s: version %d, this program reads %d; use the program that wrote it, or a newer one", path, head.Version, tokensVersion)
	}
	if err := json.Unmarshal(b, &kept); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return kept.Tokens, nil
}

// changeTokens replaces the file durably and in one step, under a lock against other
// processes that do the same.
func changeTokens(dataDir string, change func([]keptToken) ([]keptToken, error)) error {
	dir, err := ExpandPath(dataDir)
	if err != nil {
		return err
	}
	if err := atomicfile.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, tokenFile)
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	kept, err := readTokens(path)
	if err != nil {
		return err
	}
	if kept, err = change(kept); err != nil {
		return err
	}
	b, err := json.MarshalIndent(keptTokens{tokensVersion, kept}, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(b, '\n'))
}

// tokens knows the tokens of a running master. It looks at the file every time
// it is asked, and reads it when it is another one than before.
type tokens struct {
	path string

	mu   sync.Mutex  // guards what follows
	file os.FileInfo // as last read; nil: none
	kept map[[sha256.Size]byte]string
}

func newTokens(dataDir string) *tokens { return &tokens{path: filepath.Join(dataDir, tokenFile)} }

// find returns the name of the token with the given secret. A file that cannot
// be read holds no tokens: better to shut somebody out than to let one in.
func (t *tokens) find(secret string) (name string, ok bool, err error) {
	if !strings.HasPrefix(secret, tokenMark) || len(secret) > 256 {
		return "", false, nil
	}
	sum := sha256.Sum256([]byte(secret))
	t.mu.Lock()
	defer t.mu.Unlock()
	err = t.load()
	for hash, n := range t.kept {
		if subtle.ConstantTimeCompare(hash[:], sum[:]) == 1 {
			name, ok = n, true
		}
	}
	return name, ok, err
}

func (t *tokens) load() error {
	now, err := os.Stat(t.path)
	if err != nil {
		t.file, t.kept = nil, nil
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	if was := t.file; was != nil && os.SameFile(was, now) && was.ModTime().Equal(now.ModTime()) && was.Size() == now.Size() {
		return nil
	}
	t.file, t.kept = nil, nil
	kept, err := readTokens(t.path)
	if err != nil {
		return err
	}
	t.kept = make(map[[sha256.Size]byte]string, len(kept))
	for _, k := range kept {
		if b, err := hex.DecodeString(k.SHA256); err == nil && len(b) == sha256.Size {
			t.kept[[sha256.Size]byte(b)] = k.Name
		}
	}
	t.file = now
	return nil
}
