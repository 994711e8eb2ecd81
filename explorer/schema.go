package explorer

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// schema is a JSON Schema.
type schema map[string]any

// schemas derives JSON Schemas from Go types, so that the document cannot say
// another thing than what is sent. Named structs go into named and are
// referred to.
type schemas struct{ named map[string]schema }

var enums = map[reflect.Type][]any{
	reflect.TypeFor[crdtstore.Status]():       {crdtstore.Online, crdtstore.Suspect, crdtstore.Offline},
	reflect.TypeFor[crdtstore.MasterStatus](): {crdtstore.MasterSelf, crdtstore.MasterAlive, crdtstore.MasterSuspect, crdtstore.MasterDown, crdtstore.MasterLeft, crdtstore.MasterNeverMet},
	reflect.TypeFor[crdtstore.Cause]():        {crdtstore.CauseUnreachable, crdtstore.CauseRefused, crdtstore.CauseSecret, crdtstore.CauseNoMeshPort, crdtstore.CauseCollision},
	reflect.TypeFor[crdtstore.EventKind](): {
		crdtstore.NodeEvent, crdtstore.VMEvent, crdtstore.MasterEvent, crdtstore.OperatorEvent, crdtstore.GridEvent,
	},
}

func (c *schemas) of(t reflect.Type) schema {
	switch t {
	case reflect.TypeFor[time.Time]():
		return schema{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return schema{}
	}
	if values, ok := enums[t]; ok {
		return schema{"type": "string", "enum": values}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return c.of(t.Elem())
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Float64:
		return schema{"type": "number"}
	case reflect.Int, reflect.Int64:
		return schema{"type": "integer"}
	case reflect.Uint64:
		return schema{"type": "integer", "minimum": 0}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return schema{"type": "string", "contentEncoding": "base64"}
		}
		return schema{"type": "array", "items": c.of(t.Elem())}
	case reflect.Map:
		values := c.of(t.Elem())
		if t.Elem().Kind() == reflect.Pointer { // null takes the entry away
			values = schema{"oneOf": []schema{values, {"type": "null"}}}
		}
		return schema{"type": "object", "additionalProperties": values}
	case reflect.Struct:
		name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
		if _, ok := c.named[name]; !ok {
			c.named[name] = schema{} // stops recursion
			c.named[name] = c.object(t)
		}
		return schema{"$ref": "#/components/schemas/" + name}
	}
	return schema{}
}

func (c *schemas) object(t reflect.Type) schema {
	properties, required := map[string]schema{}, []string{}
	for _, f := range fields(t) {
		s := c.of(f.Type)
		if d := describe(t, f); d != "" {
			if _, ref := s["$ref"]; ref {
				// Beside $ref other keywords are ignored in draft 7.
				s = schema{"allOf": []schema{s}}
			}
			s["description"] = d
		}
		properties[jsonName(f)] = s
		if !strings.Contains(f.Tag.Get("json"), ",omitempty") && f.Type.Kind() != reflect.Pointer {
			required = append(required, jsonName(f))
		}
	}
	out := schema{"type": "object", "properties": properties}
	if len(required) > 0 && !lenient[t] {
		out["required"] = required
	}
	if required, ok := needed[t]; ok {
		out["required"] = required
	}
	return out
}

// lenient types are given by callers, who leave out what they do not mean.
var lenient = map[reflect.Type]bool{
	reflect.TypeFor[crdtstore.Report]():    true,
	reflect.TypeFor[crdtstore.Beat]():      true,
	reflect.TypeFor[crdtstore.MinFree]():   true,
	reflect.TypeFor[jsonrpc.Error]():       true,
	reflect.TypeFor[record.Capacity]():     true,
	reflect.TypeFor[record.Usage]():        true,
	reflect.TypeFor[record.Location]():     true,
	reflect.TypeFor[crdtstore.VM]():        true,
	reflect.TypeFor[record.Conflict]():     true,
	reflect.TypeFor[crdtstore.NodeQuery](): true,
}

// needed are the fields that a caller must give, where no tag can say so.
var needed = map[reflect.Type][]string{
	reflect.TypeFor[crdtstore.Report](): {"node_id"},
	reflect.TypeFor[crdtstore.Beat]():   {"node_id"},
	reflect.TypeFor[crdtstore.VM]():     {"sid"},
}

// fields lists the fields that JSON shows, those of embedded structs among them.
func fields(t reflect.Type) (all []reflect.StructField) {
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous && f.IsExported() && f.Tag.Get("json") != "-" {
			all = append(all, f)
		}
	}
	return all
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "" {
		return f.Name
	}
	return name
}

func describe(t reflect.Type, f reflect.StructField) string {
	if d := f.Tag.Get("doc"); d != "" {
		return d
	}
	return fieldDocs[t.Name()+"."+jsonName(f)]
}

// fieldDocs describes fields of types that are not of this package, in words
// for callers of the API.
var fieldDocs = map[string]string{
	"Report.node_id":              "1 to 128 characters of A-Z a-z 0-9 . _ : -",
	"Report.boot":                 "Grows with every start of the agent. Assigned here when left out with seq.",
	"Report.seq":                  "Grows with every report within a boot.",
	"Report.socket_path":          "Where the compute service answers: unix:///path, tcp://host:port or http(s)://host:port.",
	"Report.agent_path":           "Where the node's agent takes compute calls, unix:///path; an agent that has one remembers operations by their op_id.",
	"Report.trouble":              "What the node finds wrong with its own machine, such as a full disk: a set of at most 8 texts of at most 256 bytes.",
	"Report.vms":                  "All VMs of the node, at most 1000, never with a secret.",
	"Report.uptime_s":             "Seconds since the machine started.",
	"Report.public_key":           "ed25519, 32 bytes, base64.",
	"Report.signature":            "ed25519, 64 bytes, base64.",
	"Beat.node_id":                "The node's id.",
	"Beat.boot":                   "As in the node's report.",
	"Beat.seq":                    "Orders beats within a boot.",
	"Beat.usage":                  "What is in use; left out: as before.",
	"Beat.uptime_s":               "Seconds since the machine started; left out: as before.",
	"NodeQuery.status":            "Only nodes of that status.",
	"NodeQuery.labels":            "Only nodes with all these labels.",
	"NodeQuery.q":                 "Part of the id, the hostname, an address, a label, or the name or sid of a VM, whatever the case.",
	"NodeQuery.location":          "Country or city, whatever the case.",
	"NodeQuery.min_free":          "Only nodes with at least that much free.",
	"NodeQuery.sort":              "node_id (default), hostname, status, location, last_seen, created_at, updated_at, free_cru, free_mru, free_sru, free_hru, free_slices or vms; with - before it, descending.",
	"NodeQuery.limit":             "How many to return at most: 1 to 1000, default 50.",
	"NodeQuery.cursor":            "next_cursor of the page before.",
	"NodeQuery.include_removed":   "Removed nodes too.",
	"NodeQuery.conflict":          "Only nodes whose id several machines claim.",
	"Stats.conflicts":             "Nodes whose id several machines claim.",
	"VMQuery.node_id":             "Only VMs of that node.",
	"VMQuery.state":               "Only VMs in that state.",
	"VMQuery.q":                   "Part of the sid, the name or the address.",
	"VMQuery.limit":               "How many to return at most: 1 to 1000, default 50.",
	"VMQuery.cursor":              "next_cursor of the page before.",
	"NodePage.total":              "Nodes that match, over all pages.",
	"NodePage.next_cursor":        "Asks for the next page; missing on the last.",
	"VMPage.total":                "VMs that match, over all pages.",
	"VMPage.next_cursor":          "Asks for the next page; missing on the last.",
	"EventQuery.kind":             "Only what is about that.",
	"EventQuery.node_id":          "Only what is about that node.",
	"EventQuery.master":           "Only what is about that master, or was said through it: its id or name.",
	"EventQuery.q":                "Part of the text, of the type, of who asked for it, or of the id of a node or VM, whatever the case.",
	"EventQuery.limit":            "How many to return at most: 1 to 1000, default 50.",
	"EventQuery.cursor":           "next_cursor of the page before; good until the master is started again.",
	"EventPage.next_cursor":       "Asks for what happened before; missing on the last page.",
	"Event.id":                    "Ascending; of this run of this master.",
	"Event.at":                    "When; what an operator said, by the clock of the master that was told.",
	"Event.type":                  "One word, such as offline or drained.",
	"Event.vm":                    "The VM's sid.",
	"Event.master":                "The master it is about, or through which it was said: its id.",
	"Event.by":                    "Who asked for it.",
	"Event.more":                  "How many of the same it stands for, where there were too many at a time to list each.",
	"Event.text":                  "For people.",
	"Answer.accepted":             "False where something newer is known already, which is no error.",
	"Answer.register":             "True: send a report with register_node.",
	"Answer.heartbeat_interval_s": "Seconds to leave between heartbeats.",
	"Answer.offline_after_s":      "Seconds of silence after which a node counts as offline.",
	"MastersAnswer.self":          "Id of the master that answers.",
	"Node.reason":                 "Why the node is suspect.",
	"Node.removed_at":             "When an operator removed the node.",
	"Node.last_seen":              "For display; status does not depend on it.",
	"Node.seen_by":                "What each master hears of it.",
	"Node.tunnel":                 "Masters that hold a tunnel of its agent.",
	"Master.edge_addrs":           "Where agents open tunnels to it: multiaddrs with /p2p/ID.",
	"Node.signed":                 "Whether the record is signed with the node's key.",
	"Node.conflict":               "Several machines claim this id.",
	"Observer.age_s":              "Seconds since that master heard it.",
	"Master.lag_s":                "Seconds since the digests were last equal.",
	"Master.differs":              "How many nodes differ.",
	"Master.digest":               "Equal digests mean equal records.",
	"Master.hears":                "How many nodes it hears itself.",
	"Master.heard_by":             "Ids of the other masters that are alive and say that they hear it.",
	"Master.direct":               "Announcements travel in one hop between it and this master, both ways.",
	"Master.partially_connected":  "It hears less than half of the nodes that another master hears.",
	"Master.name":                 "What people call it; of a peer that was never met, the address as configured.",
	"Master.reason":               "Why it is partially connected or suspect, or was never met; which of two processes counts that have its identity.",
	"Master.cause":                "Why a configured peer was never met, absent: it was not tried yet; of any master, identity_collision: two processes have its identity.",
	"Master.since":                "Since when cause holds, or, of a master that is alive and has not been direct for a while, since when it is not.",
	"Master.settings_differ":      "Settings that should be the same on all masters and are not, each as \"name: value there, value here\".",
	"Master.clock_skew_s":         "How far its clock is ahead of that of the master that answers.",
	"Convergence.gaps":            "How often announcements of other masters did not arrive and were fetched, since the start.",
	"Convergence.rebuilt":         "Connections to other masters that were made anew, for nothing arrived over them, since the start.",
	"Convergence.splits":          "Masters that have differed for a while or cannot be reached.",
	"Split.since":                 "When it was last known to hold the same.",
	"Split.lag_s":                 "Seconds since then.",
	"Split.nodes":                 "Nodes that differed when they were compared; of a master that cannot be reached, those that changed here since.",
	"Split.unreachable":           "The other master is silent, and what it holds is unknown.",
	"Split.heard_by":              "Ids of masters that say that they hear it.",
	"Capacity.cru":                "Cores.",
	"Capacity.mru":                "Bytes of memory.",
	"Capacity.sru":                "Bytes of SSD.",
	"Capacity.hru":                "Bytes of HDD.",
	"VM.memory":                   "Bytes.",
	"VM.as_of":                    "Time of the report that says so.",
	"Stats.total":                 "Capacity of all nodes.",
	"Stats.by_status":             "The nodes, their capacity and slices by the status of the nodes; they add up to the totals.",
	"SliceCounts.total":           "Slices of all nodes.",
	"SliceCounts.free":            "Slices of online nodes that are not drained.",
	"Stats.free":                  "Free capacity of online nodes that are not drained.",
	"Stats.preservation":          "Set while a large part of the grid is silent and its nodes are suspect rather than offline; end_preservation ends it.",
	"Preservation.late":           "Nodes that should have been heard again by now.",
	"Preservation.of":             "Nodes that were alive before.",
	"EndedPreservation.masters":   "How many masters have heard it.",
	"Stats.joining":               "Set while this master is new and fetches what the others have.",
	"Joining.of":                  "Nodes that another master has.",
	"Joining.missing":             "Ids of the masters that are heard and whose records are not all here yet.",
}
