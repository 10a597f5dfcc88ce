package dotenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func load(t *testing.T, text string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

func TestLoad(t *testing.T) {
	for _, name := range []string{"DOTENV_A", "DOTENV_B", "DOTENV_C"} {
		t.Setenv(name, "") // restored at the end
		os.Unsetenv(name)
	}
	t.Setenv("DOTENV_SET", "environment")
	t.Setenv("DOTENV_EMPTY", "")
	if err := load(t, "# comment\n\nDOTENV_A=a=b, c#d\nDOTENV_B=\nDOTENV_SET=file\nDOTENV_EMPTY=file\nDOTENV_C=last line"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"DOTENV_A": "a=b, c#d", "DOTENV_B": "", "DOTENV_SET": "environment", "DOTENV_EMPTY": "", "DOTENV_C": "last line"} {
		if got, set := os.LookupEnv(name); got != want || !set {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if err := Load(filepath.Join(t.TempDir(), ".env")); err != nil {
		t.Errorf("without a file: %v", err)
	}
}

// Compose does not read these lines as a name and the bytes after the =.
func TestLoadRefuses(t *testing.T) {
	for _, line := range []string{
		"export A=1", "A =1", "A= 1", "A=1 ", "A='1'", `A="1"`, "A=$HOME", "A=1 # comment", "A=1\r", "1A=1", "A-B=1", "A", "=1", "A=1\t#",
	} {
		if err := load(t, line+"\n"); err == nil || !strings.Contains(err.Error(), "write NAME=value") {
			t.Errorf("%q: %v", line, err)
		}
	}
}
