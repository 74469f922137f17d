package recipe

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	text := "# A\n\n```sh\nfirst\n```\n\n## B\n\ntext\n\n```sh\nsecond\nthird\n```\n\n```sh\nfourth\n```\n\n## C\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path, "## B"); err != nil || got != "second\nthird\n" {
		t.Errorf("%q, %v", got, err)
	}
	for _, heading := range []string{"## C", "## D", "B"} {
		if got, err := Read(path, heading); err == nil {
			t.Errorf("%s: %q", heading, got)
		}
	}
}
