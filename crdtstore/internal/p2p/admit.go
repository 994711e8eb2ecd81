package p2p

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	admitProtocol protocol.ID = "/hero-explorer/admit/1"
	admitTimeout              = 5 * time.Second
	maxHello                  = 64 << 10 // bytes
	maxIntroduced             = 256      // masters that were never met
	maxVouched                = 48 << 10 // bytes of addresses in one list of masters
	// MaxRun bounds the name of a run, in bytes.
	MaxRun = 64
)

// The handshake that admits a master runs on one stream. The peer ids on both
// ends are proven by Noise; each side sends two frames of JSON:
//
//	dialer   hello {nonce, addrs, secured}
//	listener hello {nonce, addrs, secured}
//	dialer   done  {proof}
//	listener done  {proof, masters}
//	dialer   seen  {masters}, or {refused}
//
// proof is an HMAC-SHA256 with the cluster secret over the role, both peer ids
// and both nonces, so it is good for this connection and this direction only.
// The dialer proves first: whoever merely connects to a master learns nothing
// that would let a weak secret be guessed at leisure. And each side names the
// other masters only to one that has proven the secret. Without a secret on both
// sides, proof is empty and the address decides. The listener counts the dialer
// in before it says done, and waits for seen before it opens streams of its own,
// so neither side resets the other's first stream.
type hello struct {
	Nonce   []byte   `json:"nonce"`
	Addrs   []string `json:"addrs"`
	Secured bool     `json:"secured"`
	Run     string   `json:"run,omitempty"`
	Yielded bool     `json:"yielded,omitempty"`
}

// done is what follows hello. An older dialer names its masters in its first one; an
// older listener does not look for them in the second, and hears of them by pulses.
type done struct {
	Proof   []byte    `json:"proof,omitempty"`
	Refused string    `json:"refused,omitempty"`
	Masters []Contact `json:"masters,omitempty"`
	// Replaced: it is refused because another master is known at its address.
	Replaced  bool            `json:"replaced,omitempty"`
	Collision *CollisionError `json:"collision,omitempty"`
}

// Contact is a master that another one introduces.
type Contact struct {
	ID    string   `json:"id"`
	Addrs []string `json:"addrs"`
}

// proof returns nil where there is no secret.
func (m *Mesh) proof(role string, prover, verifier peer.ID, own, other []byte) []byte {
	if m.cfg.Secret == "" {
		return nil
	}
	secret := m.cfg.Secret
	if changed := m.secret.Load(); changed != nil {
		secret = *changed
	}
	h := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(h, "hero-explorer admit 1 %s %s %s %x %x", role, prover, verifier, own, other)
	return h.Sum(nil)
}

func frames(s io.ReadWriter) (read func(any) error, write func(any) error) {
	r, w := msgio.NewVarintReaderSize(s, maxHello), msgio.NewVarintWriter(s)
	read = func(into any) error {
		b, err := r.ReadMsg()
		if err != nil {
			return err
		}
		defer r.ReleaseMsg(b)
		return json.Unmarshal(b, into)
	}
	write = func(v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return w.WriteMsg(b)
	}
	return read, write
}

func (m *Mesh) hello() hello {
	h := hello{Nonce: make([]byte, 32), Addrs: m.Addrs(), Secured: m.cfg.Secret != "", Run: m.cfg.Run, Yielded: m.cfg.Runs.HasYielded()}
	_, _ = rand.Read(h.Nonce) // never fails, see crypto/rand
	return h
}

// admit runs the dialer's side on a connection.
func (m *Mesh) admit(ctx context.Context, c network.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	id := c.RemotePeer()
	s, err := m.open(ctx, c, admitProtocol)
	if errors.Is(err, ErrVersion) {
		f := notAdmitting(m.speaks(ctx, c))
		_ = c.Close() // not to be in the way of a connection to where it is to be met
		return fmt.Errorf("%w: %w", f, err)
	}
	if err != nil {
		_ = c.Close()
		return err
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(admitTimeout))
	read, write := frames(s)

	mine := m.hello()
	var theirs hello
	if err := errors.Join(write(mine), read(&theirs)); err != nil {
		_ = c.Close() // the next attempt makes a new one
		return fmt.Errorf("handshake: %w", err)
	}
	if err := m.check(theirs, id, s.Conn().RemoteMultiaddr()); err != nil {
		_ = write(refusedFor(err))
		return err
	}
	answer := done{Proof: m.proof("dialer", m.host.ID(), id, mine.Nonce, theirs.Nonce)}
	var last done
	if err := errors.Join(write(answer), read(&last)); err != nil {
		_ = c.Close() // the next attempt makes a new one
		return fmt.Errorf("handshake: %w", err)
	}
	proven := hmac.Equal(last.Proof, m.proof("listener", id, m.host.ID(), theirs.Nonce, mine.Nonce))
	m.heedCollision(id, last, proven)
	switch {
	case last.Refused != "":
		return refusedBy(last)
	case !proven:
		return errSecrets
	}
	if err := m.enter(ctx, c, theirs, last.Masters); err != nil {
		return m.refuse(write, nil, err)
	}
	if err := write(done{Masters: m.introduced(id)}); err != nil {
		m.withdraw(id)
		return err
	}
	m.present(id)
	return nil
}

// answer runs the listener's side.
func (m *Mesh) answer(s network.Stream) {
	defer s.Close()
	id := s.Conn().RemotePeer()
	_ = s.SetDeadline(time.Now().Add(admitTimeout))
	read, write := frames(s)
	err := m.answerTo(s, id, read, write)
	if err == nil || errors.Is(err, io.EOF) {
		return
	}
	m.noteReplaced(s.Conn().RemoteMultiaddr(), err)
	m.refused(id, s.Conn().RemoteMultiaddr(), err)
	if _, ok := errors.AsType[refusal](err); !ok {
		_ = s.Reset() // a refusal has still to arrive, and a reset would overtake it
	}
}

func (m *Mesh) answerTo(s network.Stream, id peer.ID, read, write func(any) error) error {
	mine := m.hello()
	var theirs hello
	if err := read(&theirs); err != nil {
		return err
	}
	var answer done
	if err := write(mine); err != nil {
		return err
	}
	if id == m.host.ID() {
		m.itself(theirs, s.Conn().RemoteMultiaddr())
		return nil
	}
	if err := read(&answer); err != nil {
		return err
	}
	if answer.Refused != "" {
		return refusedBy(answer)
	}
	err := m.check(theirs, id, s.Conn().RemoteMultiaddr())
	if err == nil && !hmac.Equal(answer.Proof, m.proof("dialer", id, m.host.ID(), theirs.Nonce, mine.Nonce)) {
		err = errSecrets
	}
	if err != nil {
		_ = write(refusedFor(err))
		return refusal{err}
	}
	ctx, cancel := context.WithTimeout(context.Background(), admitTimeout)
	defer cancel()
	proof := m.proof("listener", m.host.ID(), id, mine.Nonce, theirs.Nonce)
	if err := m.enter(ctx, s.Conn(), theirs, answer.Masters); err != nil {
		return m.refuse(write, proof, err)
	}
	var seen done
	err = errors.Join(write(done{Proof: proof, Masters: m.introduced(id)}), read(&seen))
	if err == nil && seen.Refused != "" {
		m.heedCollision(id, seen, true)
		err = refusedBy(seen)
	}
	if err != nil {
		m.withdraw(id)
		return err
	}
	m.Learn(seen.Masters)
	m.present(id)
	return nil
}

// refusedFor is what tells the other side that it is refused, and why.
func refusedFor(err error) done {
	return done{Refused: err.Error(), Replaced: errors.As(err, new(*replacedError))}
}

// refused logs why a peer was turned away. Strangers come with any id and from any port,
// so lines are counted by where they come from.
func (m *Mesh) refused(id peer.ID, from ma.Multiaddr, err error) {
	ip := remoteIP(from).String()
	state := "it breaks off" // what others say may vary
	switch {
	case errors.As(err, new(refusal)):
		state = err.Error()
	case errors.As(err, new(refusedError)):
		state = "it refuses"
	}
	m.states.State(slog.LevelWarn, "refused "+ip, state, "master refused", "master", id, "from", ip, "err", err)
}

// refusal is why this side turned the other away, and told it.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

var (
	errSecrets = errors.New("the cluster secrets differ")
	errOneSide = errors.New("one side has a cluster secret and the other has none; give both the same")
	errUnnamed = errors.New("its address is not among the peers of this master, and there is no cluster secret")
)

// check decides on what the other side says before it proves anything.
func (m *Mesh) check(theirs hello, id peer.ID, from ma.Multiaddr) error {
	switch {
	case len(theirs.Nonce) < 16:
		return errors.New("its nonce is too short")
	case len(theirs.Run) > MaxRun:
		return errors.New("the name of its run is too long")
	case theirs.Secured != (m.cfg.Secret != ""):
		return errOneSide
	case m.cfg.Secret == "":
		return m.expect(id, from, theirs.Addrs)
	}
	return nil
}

// parseAddrs reads the addresses another master gives, at most 16.
func parseAddrs(addrs []string) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range addrs {
		if m, err := ma.NewMultiaddr(a); err == nil && len(out) < 16 && len(m) > 0 {
			if rest, id := peer.SplitAddr(m); id != "" {
				m = rest
			}
			out = append(out, m)
		}
	}
	return out
}
