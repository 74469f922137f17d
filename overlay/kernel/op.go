package kernel

import "strings"

// object is one thing in the kernel that a State can name.
type object interface {
	kind() string // as counted in Result.Repaired
	name() string // unique within its kind
	link() string // the device of ours it needs; empty for none
	String() string
}

func (s Sysctl) kind() string { return "sysctl" }
func (l Link) kind() string   { return "link" }
func (v Veth) kind() string   { return "veth" }
func (a Addr) kind() string   { return "addr" }
func (n Neigh) kind() string  { return "neigh" }
func (f FDB) kind() string    { return "fdb" }
func (r Route) kind() string  { return "route" }

func (s Sysctl) name() string { return s.Key }
func (l Link) name() string   { return l.Name }
func (v Veth) name() string   { return v.Name }
func (a Addr) name() string   { return a.Link + " " + a.Prefix.String() }
func (n Neigh) name() string  { return n.Link + " " + n.IP.String() }
func (f FDB) name() string    { return f.Link + " " + f.MAC.String() }
func (r Route) name() string  { return r.Dst.String() }

func (l Link) link() string  { return l.Name }
func (v Veth) link() string  { return v.Master }
func (a Addr) link() string  { return a.Link }
func (n Neigh) link() string { return n.Link }
func (f FDB) link() string   { return f.Link }
func (r Route) link() string { return r.Link }

// table is our nftables table: a line for each chain and, after it, one for each
// of its rules. An empty text means that there is none.
type table struct {
	text   string
	chains []baseChain // of a wanted one
}

func (t table) kind() string { return "nft" }
func (t table) name() string { return "" }
func (t table) link() string { return "" }
func (t table) String() string {
	return "nft " + strings.TrimSuffix(strings.ReplaceAll(t.text, "\n", "; "), "; ")
}

// accept is the pair of rules in dockerd's own chain, one family's, that keeps
// FORWARD's policy from dropping what our table lets pass.
type accept struct{ family string } // "ip" or "ip6"

func (a accept) kind() string { return "docker-user" }
func (a accept) link() string { return "" }
func (a accept) name() string {
	if a.family == "ip" {
		return ""
	}
	return a.family
}
func (a accept) String() string { return "docker-user " + a.family }

// label names an object as Failure.Object does.
func label(o object) string {
	if o.name() == "" {
		return o.kind()
	}
	return o.kind() + " " + o.name()
}

// What an op does.
const (
	opAdd    = "add"
	opSet    = "set"    // change in place
	opUp     = "up"     // set a link up
	opRemake = "remake" // delete and add
	opDelete = "delete"
	opRefuse = "refuse" // cannot be done; why tells the reason
)

// op is one change of one object, or the reason why it cannot be changed.
type op struct {
	verb string
	on   object
	why  string // what differs, for set; the reason, for refuse
}

// String is the op's golden form.
func (o op) String() string {
	if o.why == "" {
		return o.verb + " " + o.on.String()
	}
	return o.verb + " " + o.on.String() + " (" + o.why + ")"
}

// key is equal for two ops that do the same to the same object, whatever the
// object was before.
func (o op) key() string { return o.verb + " " + label(o.on) }

// link is the device whose setting this is, if the key names one.
func (s Sysctl) link() string {
	part := strings.Split(s.Key, "/")
	if len(part) == 4 && (part[1] == "conf" || part[1] == "neigh") && part[2] != "all" && part[2] != "default" {
		return part[2]
	}
	return ""
}
