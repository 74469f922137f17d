package doctor

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestChecksAreDocumented compares docs/troubleshooting.md with the code; with
// UPDATE_DOCS=1 it writes the table.
func TestChecksAreDocumented(t *testing.T) {
	const path, begin, end = "../../docs/troubleshooting.md", "<!-- checks: made by UPDATE_DOCS=1 go test ./internal/doctor -->\n", "<!-- /checks -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	table, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s lacks %s or %s", path, begin, end)
	}
	want, known := "| line | what must be true |\n|---|---|\n", map[string]bool{}
	for _, c := range Checks() {
		want += fmt.Sprintf("| `%s` | %s |\n", c.Name, c.Meaning)
		known[c.Name] = true
	}
	if table != want {
		if os.Getenv("UPDATE_DOCS") == "" {
			t.Fatalf("%s is not what the code says; make it so with: UPDATE_DOCS=1 go test ./internal/doctor", path)
		}
		if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Each symptom leads to a line that there is.
	named := regexp.MustCompile("(?m)^(?:- |\\| )?((?:`[a-z_-]+`(?:, )?)+)(?::| \\|)")
	_, symptoms, _ := strings.Cut(head, "## By symptom")
	for section := range strings.SplitSeq(symptoms, "\n### ") {
		title, _, _ := strings.Cut(section, "\n")
		leads := 0
		for _, m := range named.FindAllStringSubmatch(section, -1) {
			for name := range strings.SplitSeq(m[1], ", ") {
				if name = strings.Trim(name, "`"); known[name] {
					leads++
				} else {
					t.Errorf("%q leads to the line %s, which there is not", title, name)
				}
			}
		}
		if leads == 0 && title != "" && title != "Names" && title != "Published ports" {
			t.Errorf("%q leads to no line of the doctor's", title)
		}
	}
}
