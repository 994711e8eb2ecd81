package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// step has another master say what it holds.
func (c *clocked) step(t *testing.T, s Summary) Step {
	t.Helper()
	s.Wall, c.alive["m2"] = c.wall, c.now
	step, err := c.Replica.Observe(t.Context(), "m2", s)
	if err != nil {
		t.Fatal(err)
	}
	return step
}

func TestWhatToDoAboutAnother(t *testing.T) {
	c := newClocked(t)
	c.register(t, "n")
	if err := c.Publish(); err != nil {
		t.Fatal(err)
	}
	same, _ := c.table.Digest()
	other := record.Digest{1}
	nowhere := cid.MustParse("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")
	heads := func(all ...cid.Cid) []cid.Cid { return all }
	settled := int64(compareAfter/time.Millisecond) + 1
	for _, s := range []struct {
		why   string
		after int64
		says  Summary
		want  Step
	}{
		{"it holds the same", 0, Summary{Epoch: 1, Digest: same}, Rest},
		{"it holds something else, maybe for a moment", 1000, Summary{Epoch: 1, Digest: other}, Rest},
		{"it has a block that is not here", 0, Summary{Epoch: 1, Digest: other, Heads: heads(nowhere)}, Pull},
		{"it holds something else for long", settled, Summary{Epoch: 1, Digest: other}, Compare},
		{"it has a block that is not here, for long", 0, Summary{Epoch: 1, Digest: other, Heads: heads(nowhere)}, Pull},
		{"it is in an epoch before", 0, Summary{Epoch: 0, Digest: other, Heads: heads(nowhere)}, Rest},
		{"it fetches what is not there, for long", settled, Summary{Epoch: 1, Digest: other, Fetching: true}, Rest},
		{"it is done, and holds something else", 0, Summary{Epoch: 1, Digest: other}, Compare},
		{"it fetches for too long", int64(fetchGrace/time.Millisecond) + 1, Summary{Epoch: 1, Digest: other, Fetching: true}, Compare},
		{"it holds the same again", 0, Summary{Epoch: 1, Digest: same}, Rest},
		{"it holds something else again", 1000, Summary{Epoch: 1, Digest: other}, Rest},
	} {
		c.pass(s.after)
		if got := c.step(t, s.says); got != s.want {
			t.Errorf("%s: step %d, want %d", s.why, got, s.want)
		}
	}
	if a := c.Agreement("m2"); a.InSync || c.now.Sub(a.Equal) != time.Second {
		t.Errorf("agreement %+v at %v", a, c.now)
	}
	c.Compared("m2", 7, nil)
	if a := c.Agreement("m2"); a.Differs != 7 {
		t.Errorf("agreement %+v", a)
	}
	if c.step(t, Summary{Epoch: 1, Digest: same}); c.Agreement("m2").Differs != 0 {
		t.Error("it differs although the digests are equal")
	}
	if a := c.Agreement("m3"); a != (Agreement{}) {
		t.Errorf("agreement %+v with one that was never heard", a)
	}
}

// A master that has a block and does not give it is asked a few times; then states
// are compared, and it is asked again.
func TestBlocksThatDoNotCome(t *testing.T) {
	c := newClocked(t)
	says := Summary{Epoch: 1, Digest: record.Digest{1}, Heads: []cid.Cid{cid.MustParse("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")}}
	c.step(t, says)
	c.pass(int64(compareAfter/time.Millisecond) + 1)
	var steps []Step
	for range 8 {
		step := c.step(t, says)
		if steps = append(steps, step); step == Pull {
			c.Pulled("m2", 0, errors.New("no such block"))
		}
	}
	for i, s := range steps {
		if want := i%4 == 3; (s == Compare) != want {
			t.Errorf("steps %v", steps)
			break
		}
	}
	c.Pulled("m2", 3, errors.New("broke off")) // something came
	for range maxBroken - 1 {
		c.Pulled("m2", 0, errors.New("no such block"))
	}
	if c.step(t, says) != Pull {
		t.Error("it gave something, and is called stuck")
	}
	c.Pulled("nobody", 0, errors.New("x"))
}
