package main

import "slices"

// section is what one mode's rounds say.
type section struct {
	Title  string
	Rows   []row
	Ratios []ratio
}

// row is one path's figures.
type row struct {
	Path    string
	Medians figures
	Rounds  []figures
}

// ratio is how one of our paths stands to an alternative.
type ratio struct {
	Path, To string
	Figures  map[string]spread
}

// spread is of the rounds' own ratios: what is compared stands next to each
// other in time, so a machine that is busier for a while falls on both.
type spread struct{ Median, Least, Greatest float64 }

// alternatives are what our backends are compared with.
var alternatives = [][2]string{
	{ourVXLAN, vxlanPath},
	{ourHostGW, routedPath},
	{ourUDP, vxlanPath},
	{ourUDP, naivePath},
}

// compared are the figures whose ratios are shown.
var compared = []string{tcp1, tcp4, small, p50}

func newSection(title string, paths []path, rounds [][]figures) section {
	s := section{Title: title}
	byName := map[string]row{}
	for i, p := range paths {
		r := row{Path: p.name, Rounds: rounds[i], Medians: figures{}}
		for name := range r.Rounds[0] {
			r.Medians[name] = median(r.values(name))
		}
		s.Rows = append(s.Rows, r)
		byName[p.name] = r
	}
	for _, pair := range alternatives {
		ours, mine := byName[pair[0]]
		other, theirs := byName[pair[1]]
		if mine && theirs {
			s.Ratios = append(s.Ratios, ours.to(other))
		}
	}
	return s
}

// to compares two rows round by round.
func (r row) to(other row) ratio {
	out := ratio{Path: r.Path, To: other.Path, Figures: map[string]spread{}}
	for _, name := range compared {
		if _, measured := r.Medians[name]; !measured {
			continue
		}
		var each []float64
		for i, value := range r.values(name) {
			each = append(each, value/other.Rounds[i][name])
		}
		out.Figures[name] = spread{median(each), slices.Min(each), slices.Max(each)}
	}
	return out
}

func (r row) values(name string) []float64 {
	var values []float64
	for _, f := range r.Rounds {
		values = append(values, f[name])
	}
	return values
}

// median is the middle one, or the mean of the two.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
