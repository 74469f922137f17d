// Package recipe holds the documents to their word: tests run the commands that
// they show.
package recipe

import (
	"fmt"
	"os"
	"strings"
)

// Read returns the first shell commands under a heading of a Markdown file.
func Read(path, heading string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		return "", fmt.Errorf("%s has no heading %q", path, heading)
	}
	_, commands, found := strings.Cut(section, "\n```sh\n")
	commands, _, closed := strings.Cut(commands, "\n```\n")
	if !found || !closed {
		return "", fmt.Errorf("%s has no commands under %q", path, heading)
	}
	return commands + "\n", nil
}
