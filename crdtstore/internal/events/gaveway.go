package events

import (
	"fmt"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// gaveWay returns what operators asked for on one side of a split and does not prevail after
// it, each as a text: an override that gave way to another, a removal that a later boot
// undid. base is the node as both sides knew it before, here as this side knows it, and
// there what came from the other. What was asked for on one side only prevails. name names a
// master by its id.
func gaveWay(base, here, there record.State, name func(master string) string) (texts []string) {
	describe := func(a action) string {
		_, text := a.describe(name)
		return text
	}
	there = record.Join(base, there)
	prevailing := record.Join(here, there)
	for _, side := range []record.State{here, there} {
		for _, w := range side.Overrides {
			now := prevailing.Override(w.Field)
			if w != base.Override(w.Field) && w.Value != now.Value {
				texts = append(texts, fmt.Sprintf("%s gave way to %s", describe(overrideOf("", w)), describe(overrideOf("", now))))
			}
		}
		if side.Removed() && !base.Removed() && !prevailing.Removed() {
			texts = append(texts, fmt.Sprintf("%s gave way to boot %d", describe(removalOf("", side.Removal)), prevailing.Boot()))
		}
	}
	return texts
}
