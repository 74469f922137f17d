package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

const (
	enable  = "docker plugin enable docker-flannel"
	restart = "docker plugin disable -f docker-flannel && " + enable
)

// set is the command that changes a setting.
func set(setting string) string {
	return "docker plugin disable -f docker-flannel && docker plugin set docker-flannel " + setting + " && " + enable
}

func judgePlugin(w *World) Verdict {
	p := w.Plugin
	if p.Answers() {
		return ok(fmt.Sprintf("answers, version %s", p.Version))
	}
	v := Verdict{State: Fail, Why: "running containers keep talking, but nothing is mended, renewed or made"}
	switch {
	case p.Engine != "":
		v.Found, v.Mend = fmt.Sprintf("%s; and the engine: %s", p.Error, p.Engine), "systemctl start docker"
	case !p.Installed:
		v.Found, v.Mend = "not installed", "docker plugin install --alias docker-flannel REGISTRY/docker-flannel"
	case !p.Enabled:
		v.Found, v.Mend = "disabled", enable
	default:
		v.Found, v.Mend = p.Error, restart
	}
	return v
}

func judgeProblems(w *World) []Verdict {
	if !w.Plugin.Answers() {
		return []Verdict{unknown("the plugin does not answer")}
	}
	var out []Verdict
	for _, f := range w.Problems {
		out = append(out, Verdict{State: Fail, Found: f.Text, Mend: f.Next})
	}
	return orNone(out, ok("none"))
}

// delCommand is in what the kernel room says of a device in the way.
var delCommand = regexp.MustCompile(`ip link del [^'")]+`)

// foreign are differences that have a check of their own.
var foreign = []string{"docker-user", "sysctl ipv4/ip_forward"}

func judgeDevices(w *World) Verdict {
	if w.AuditErr != "" {
		return unknown(w.AuditErr)
	}
	if len(w.networks()) == 0 && len(w.Audit) == 0 {
		return ok("no Docker network of flannel's, so none is wanted")
	}
	var wrong, inTheWay []string
	mend, why := restart, "packets take the way that the kernel has, not the one planned"
	if !w.Plugin.Answers() {
		mend = judgePlugin(w).Mend
	}
	for _, d := range w.Audit {
		if slices.ContainsFunc(foreign, func(f string) bool { return strings.HasPrefix(d.Object, f) }) {
			continue
		}
		wrong = append(wrong, d.Change)
		if del := delCommand.FindString(d.Change); del != "" {
			inTheWay = append(inTheWay, del)
		}
	}
	if len(wrong) == 0 {
		return ok("as planned")
	}
	if len(inTheWay) > 0 {
		mend, why = strings.Join(inTheWay, " && "), "another program's device is in the way: stop that program first, flanneld perhaps, whose traffic ends with it"
	}
	const most = 3
	found := strings.Join(wrong[:min(len(wrong), most)], "; ")
	if len(wrong) > most {
		found += fmt.Sprintf("; and %d more", len(wrong)-most)
	}
	return Verdict{State: Fail, Found: "to be done: " + found, Why: why, Mend: mend}
}

func judgeDockerUser(w *World) Verdict {
	switch {
	case w.AuditErr != "":
		return unknown(w.AuditErr)
	case len(w.networks()) == 0:
		return ok("no Docker network of flannel's, so none are wanted")
	}
	i := slices.IndexFunc(w.Audit, func(d report.Difference) bool { return strings.HasPrefix(d.Object, "docker-user") })
	if i < 0 {
		return ok("in place, or not needed")
	}
	mend := restart
	if !w.Plugin.Answers() {
		mend = judgePlugin(w).Mend
	}
	if w.Kernel.Legacy != "" {
		mend = w.Kernel.Legacy
	}
	return Verdict{
		State: Fail, Found: "missing: " + w.Audit[i].Change, Mend: mend,
		Why: "the engine's FORWARD policy drops what is routed between containers of two hosts",
	}
}
