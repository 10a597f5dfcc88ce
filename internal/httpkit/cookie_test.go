package httpkit

import "testing"

func TestCookieValue(t *testing.T) {
	for header, want := range map[string]string{
		"":                      "",
		"v":                     "",
		"v=":                    "",
		"v=1":                   "1",
		" v=1 ":                 "1",
		"a=b; v=1":              "1",
		"a=b;v=1;c=d":           "1",
		"v=1; v=2":              "1",
		"a=v=2; v=1":            "1",
		"vv=2; xv=3; V=4":       "",
		";;; ; v=1":             "1",
		"a; v=1":                "1",
		"a=\"x; v=1":            "1", // a quotation mark has no meaning in the grammar of a header
		"v =1":                  "",
		"a=b\t;\tv=1\t; c":      "1",
		"v==1":                  "=1",
		"a=b; v=\"1\"; x":       "\"1\"",
		"longer=v=1;another=v=": "",
	} {
		if got := string(CookieValue([]byte(header), "v")); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}
