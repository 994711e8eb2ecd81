package record

import (
	"maps"
	"slices"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/wire"
)

// Capacity is an amount of compute: CRU in cores, the rest in bytes of memory
// (MRU), SSD (SRU) and HDD (HRU), named as on the ThreeFold grid.
type Capacity struct {
	CRU float64 `json:"cru"`
	MRU uint64  `json:"mru"`
	SRU uint64  `json:"sru"`
	HRU uint64  `json:"hru"`
}

// Usage is what of a node is in use. It lives in the pulse plane and is never
// written to disk.
type Usage struct {
	CRU    float64 `json:"cru"`
	MRU    uint64  `json:"mru"`
	SRU    uint64  `json:"sru"`
	HRU    uint64  `json:"hru"`
	Slices uint64  `json:"slices"`
}

// Location is where a node stands; Latitude and Longitude in degrees.
type Location struct {
	Country   string  `json:"country"`
	City      string  `json:"city"`
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
}

// Profile is the slow part of a node's account of itself.
type Profile struct {
	Hostname string `json:"hostname"`
	// SocketPath is where the node's compute service answers: unix:///path,
	// tcp://host:port or http(s)://host:port.
	SocketPath  string            `json:"socket_path"`
	MyceliumIP  string            `json:"mycelium_ip,omitempty"`
	Version     string            `json:"version"`
	Location    Location          `json:"location"`
	Total       Capacity          `json:"total"`
	SlicesTotal uint64            `json:"slices_total"`
	Labels      map[string]string `json:"labels"`
	// MachineID tells machines apart, so that a master knows whether a socket
	// path or a loopback address is on its own machine. Empty: not told.
	MachineID string `json:"machine_id,omitempty"`
	// AgentPath is where the node's agent takes calls for the compute service, as
	// unix:///path on the node's machine. An agent that has one remembers operations,
	// so that each runs at most once. Empty: nobody does.
	AgentPath string `json:"agent_path,omitempty"`
	// Trouble is what the node finds wrong with its own machine, such as a full disk,
	// each a short sentence. It is a set: at most [MaxTrouble] texts of at most 256
	// bytes, in the order of their bytes. Empty: nothing is wrong.
	Trouble []string `json:"trouble,omitempty"`
}

// VMDeleted is the state by which a VM is said to be gone.
const VMDeleted = "deleted"

// VM is a virtual machine as its node last reported it. It never carries a
// secret.
type VM struct {
	SID    string `json:"sid"`
	Name   string `json:"name"`
	NodeID string `json:"node_id"`
	State  string `json:"state"`
	CPU    uint64 `json:"cpu"`    // virtual cores
	Memory uint64 `json:"memory"` // bytes
	IP     string `json:"ip,omitempty"`
	// AsOf is the time of the account that says so, RFC 3339.
	AsOf string `json:"as_of"`
}

// encode returns the canonical body of a Profile register.
func (p Profile) encode() string {
	var b []byte
	b = wire.AppendString(b, 1, p.Hostname)
	b = wire.AppendString(b, 2, p.SocketPath)
	b = wire.AppendString(b, 3, p.MyceliumIP)
	b = wire.AppendString(b, 4, p.Version)
	if p.Location != (Location{}) {
		b = wire.AppendMessage(b, 5, func(b []byte) []byte {
			b = wire.AppendString(b, 1, p.Location.Country)
			b = wire.AppendString(b, 2, p.Location.City)
			b = wire.AppendFloat(b, 3, p.Location.Latitude)
			return wire.AppendFloat(b, 4, p.Location.Longitude)
		})
	}
	if p.Total != (Capacity{}) {
		b = wire.AppendMessage(b, 6, func(b []byte) []byte {
			b = wire.AppendFloat(b, 1, p.Total.CRU)
			b = wire.AppendUint(b, 2, p.Total.MRU)
			b = wire.AppendUint(b, 3, p.Total.SRU)
			return wire.AppendUint(b, 4, p.Total.HRU)
		})
	}
	b = wire.AppendUint(b, 7, p.SlicesTotal)
	for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
		b = wire.AppendMessage(b, 8, func(b []byte) []byte {
			b = wire.AppendString(b, 1, k)
			return wire.AppendString(b, 2, p.Labels[k])
		})
	}
	b = wire.AppendString(b, 9, p.MachineID)
	b = wire.AppendString(b, 10, p.AgentPath)
	for _, text := range slices.Compact(slices.Sorted(slices.Values(p.Trouble))) {
		b = wire.AppendString(b, 11, text)
	}
	return string(b)
}

// DecodeProfile parses the body of a Profile register.
func DecodeProfile(in string) (Profile, error) {
	var p Profile
	last := ""
	err := eachField(in, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			p.Hostname = f.View()
		case 2:
			p.SocketPath = f.View()
		case 3:
			p.MyceliumIP = f.View()
		case 4:
			p.Version = f.View()
		case 5:
			return eachField(f.View(), func(num wire.Number, f wire.Field) error {
				switch num {
				case 1:
					p.Location.Country = f.View()
				case 2:
					p.Location.City = f.View()
				case 3:
					return float(f, &p.Location.Latitude)
				case 4:
					return float(f, &p.Location.Longitude)
				default:
					return unknownField(num)
				}
				return nil
			})
		case 6:
			return eachField(f.View(), func(num wire.Number, f wire.Field) error {
				switch num {
				case 1:
					return float(f, &p.Total.CRU)
				case 2:
					p.Total.MRU = f.Uint
				case 3:
					p.Total.SRU = f.Uint
				case 4:
					p.Total.HRU = f.Uint
				default:
					return unknownField(num)
				}
				return nil
			})
		case 7:
			p.SlicesTotal = f.Uint
		case 8:
			var k, v string
			err := eachField(f.View(), func(num wire.Number, f wire.Field) error {
				switch num {
				case 1:
					k = f.View()
				case 2:
					v = f.View()
				default:
					return unknownField(num)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if len(p.Labels) > 0 && k <= last {
				return encodingError("labels out of order")
			}
			if p.Labels == nil {
				p.Labels = map[string]string{}
			}
			p.Labels[k], last = v, k
		case 9:
			p.MachineID = f.View()
		case 10:
			p.AgentPath = f.View()
		case 11:
			p.Trouble = append(p.Trouble, f.View())
		default:
			return unknownField(num)
		}
		return nil
	})
	if err == nil && p.encode() != in {
		err = encodingError("profile is not in canonical form")
	}
	if err != nil {
		return Profile{}, err
	}
	return p, nil
}

// encodeVMs returns the canonical body of a VMs register. NodeID and AsOf are
// not part of it: they follow from where and when the account was accepted.
func encodeVMs(vms []VM) string {
	vms = slices.Clone(vms)
	slices.SortFunc(vms, func(a, b VM) int { return strings.Compare(a.SID, b.SID) })
	var b []byte
	for _, v := range vms {
		b = wire.AppendMessage(b, 1, func(b []byte) []byte {
			b = wire.AppendString(b, 1, v.SID)
			b = wire.AppendString(b, 2, v.Name)
			b = wire.AppendString(b, 3, v.State)
			b = wire.AppendUint(b, 4, v.CPU)
			b = wire.AppendUint(b, 5, v.Memory)
			return wire.AppendString(b, 6, v.IP)
		})
	}
	return string(b)
}

// FittingVMs returns how many of the VMs, from the first one on, one node may report.
func FittingVMs(vms []VM) int {
	size := 0
	for i := range vms[:min(len(vms), MaxVMs)] {
		if size += len(encodeVMs(vms[i : i+1])); size > MaxVMBytes {
			return i
		}
	}
	return min(len(vms), MaxVMs)
}

// DecodeVMs parses the body of a VMs register. NodeID and AsOf are left empty.
func DecodeVMs(in string) ([]VM, error) {
	vms, err := parseVMs(in)
	if err == nil && encodeVMs(vms) != in {
		err = encodingError("VM list is not in canonical form")
	}
	if err != nil {
		return nil, err
	}
	return vms, nil
}

// parseVMs is DecodeVMs without the look whether the form is canonical.
func parseVMs(in string) ([]VM, error) {
	var vms []VM
	err := eachField(in, func(num wire.Number, f wire.Field) error {
		if num != 1 {
			return unknownField(num)
		}
		var v VM
		err := eachField(f.View(), func(num wire.Number, f wire.Field) error {
			switch num {
			case 1:
				v.SID = f.View()
			case 2:
				v.Name = f.View()
			case 3:
				v.State = f.View()
			case 4:
				v.CPU = f.Uint
			case 5:
				v.Memory = f.Uint
			case 6:
				v.IP = f.View()
			default:
				return unknownField(num)
			}
			return nil
		})
		if n := len(vms); err == nil && n > 0 && vms[n-1].SID >= v.SID {
			return encodingError("VMs out of order")
		}
		vms = append(vms, v)
		return err
	})
	return vms, err
}
