package crdtstore

import (
	"fmt"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// overridden returns what was said of a node on one side of a split and does not stand after
// it, each as a text: an account behind which there is a later one, an operator's word
// that gave way to another, a removal that a later boot undid. base is the node as both
// sides knew it before, here as this side knows it, and there what came from the other.
// What an agent or an operator said anew on one side only is progress and no loss. name
// names a master by its id.
func overridden(base, here, there record.State, name func(string) string) []string {
	there = record.Join(base, there)
	prevailing := record.Join(here, there)
	var out []string
	for _, side := range []record.State{here, there} {
		for _, c := range side.Claims {
			if text := lostAccount(claimOf(base, c.Key), c, side, prevailing); text != "" {
				out = append(out, text)
			}
		}
		for _, w := range side.Overrides {
			now := prevailing.Override(w.Field)
			if w != base.Override(w.Field) && w.Value != now.Value {
				out = append(out, fmt.Sprintf("%s gave way to %s", overrideText(w, name), overrideText(now, name)))
			}
		}
		if side.Removed() && !base.Removed() && !prevailing.Removed() {
			out = append(out, fmt.Sprintf("the removal%s gave way to boot %d", said(side.Removal.By, side.Removal.Master, name), prevailing.Boot()))
		}
	}
	return out
}

// lostAccount tells of an account whether it stands. A removal on its own side is no loss
// of that side.
func lostAccount(before, c record.Claim, own, all record.State) string {
	v, now := c.Latest(), claimOf(all, c.Key)
	switch {
	case sameAccount(before, c), own.Hides(c):
		return ""
	case now == (record.Claim{}):
		return fmt.Sprintf("account %d/%d gave way to another identity", v.Boot, v.Seq)
	case all.Hides(now):
		return fmt.Sprintf("account %d/%d gave way to a removal", v.Boot, v.Seq)
	case now.Latest() != v:
		return fmt.Sprintf("account %d/%d gave way to %d/%d", v.Boot, v.Seq, now.Latest().Boot, now.Latest().Seq)
	case !sameAccount(c, now) && len(all.Claims) <= record.MaxVMClaims: // else VMs are not kept
		return fmt.Sprintf("account %d/%d gave way to another one of that version", v.Boot, v.Seq)
	}
	return ""
}

// sameAccount compares what a node has said. When a master took it is no part of that.
func sameAccount(a, b record.Claim) bool {
	return a.Profile.Version == b.Profile.Version && a.Profile.Body == b.Profile.Body &&
		a.VMs.Version == b.VMs.Version && a.VMs.Body == b.VMs.Body
}

func claimOf(s record.State, key string) record.Claim {
	for _, c := range s.Claims {
		if c.Key == key {
			return c
		}
	}
	return record.Claim{}
}

func overrideText(w record.Override, name func(string) string) string {
	label, isLabel := strings.CutPrefix(w.Field, record.FieldLabel)
	value, set := strings.CutPrefix(w.Value, "=")
	what := w.Field + " " + w.Value
	switch {
	case w.Field == record.FieldDrain && w.Value != "":
		what = "drained"
	case w.Field == record.FieldDrain:
		what = "not drained"
	case isLabel && set:
		what = fmt.Sprintf("label %s=%s", label, value)
	case isLabel && w.Value == record.LabelUnset:
		what = fmt.Sprintf("no label %s", label)
	case isLabel:
		what = fmt.Sprintf("label %s as the agent says", label)
	}
	return what + said(w.By, w.Master, name)
}

// said tells who said something, and through which master.
func said(by, master string, name func(string) string) string {
	out := ""
	if by != "" {
		out = " by " + by
	}
	if master != "" {
		out += " through " + name(master)
	}
	if out != "" {
		return " (" + strings.TrimPrefix(out, " ") + ")"
	}
	return ""
}
