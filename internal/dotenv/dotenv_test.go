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

// Compose does not read these lines as a name and the bytes after the =. The error has the line and its one fault.
func TestLoadRefuses(t *testing.T) {
	const spaces, names = "remove the spaces before the name and around the =", "is not a name"
	for line, want := range map[string]string{
		"export A=1": "without export", "A": "there is no =", "=1": names, "1A=1": names, "A-B=1": names,
		"A =1": spaces, "A= 1": spaces, " A=1": spaces, "A=1 ": "A: remove the space at the end",
		"A='1'": "A: write the value without quotes", `A="1"`: "A: write the value without quotes", "A=$HOME": "A: a value cannot contain $",
		"A=1 # comment": "A: move the comment", "A=1\t#": "A: move the comment", "A=1\r": "line ends as on Unix", "A=1\r2": "A: a value cannot contain a carriage return",
	} {
		err := load(t, "# comment\n\n"+line+"\n")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "line 3: ") || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

// Of two lines with one name, Compose takes the last.
func TestLoadRefusesDuplicates(t *testing.T) {
	t.Setenv("DOTENV_A", "environment")
	err := load(t, "DOTENV_A=1\n\nDOTENV_A=2\n")
	if want := ".env, line 3: DOTENV_A is already set in line 1: remove one of the two"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

// The lines that are not refused count.
func TestLoadGoesOnAfterABadLine(t *testing.T) {
	t.Setenv("DOTENV_A", "") // restored at the end
	os.Unsetenv("DOTENV_A")
	if err := load(t, "bad\nDOTENV_A=1\nworse\n"); err == nil || strings.Count(err.Error(), "there is no =") != 2 {
		t.Errorf("error %v, want both lines", err)
	}
	if got := os.Getenv("DOTENV_A"); got != "1" {
		t.Errorf("DOTENV_A is %q, want 1", got)
	}
}
