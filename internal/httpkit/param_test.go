package httpkit

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestParam(t *testing.T) {
	tests := []struct {
		query string
		want  string
		err   error
	}{
		{"id=a", "a", nil},
		{"id=", "", nil},
		{"id", "", nil},
		{"id=a=b", "a=b", nil},
		{"id=a+b%20c%2B", "a b c+", nil},
		{"id=%C3%bc", "ü", nil},
		{"id=a;b", "a;b", nil},
		{"x=1&id=a&y", "a", nil},
		{"&&id=a&", "a", nil},
		{"%69d=a", "a", nil},
		{"ID=a", "", errNoParam},
		{"", "", errNoParam},
		{"idx=a", "", errNoParam},
		{"id=a&id=b", "", errManyParams},
		{"id=a&id=a", "", errManyParams},
		{"id=a&%69%64=b", "", errManyParams},
		{"id=%", "", errParamEscape},
		{"id=%4", "", errParamEscape},
		{"id=%4g", "", errParamEscape},
		{"id=%g4", "", errParamEscape},
		{"id=a%%41", "", errParamEscape},
		{"%zz=1&id=a", "", errParamEscape},
		{"x=%zz&id=a", "", errParamEscape},
		{"id=a&x=%", "", errParamEscape},
	}
	for _, tt := range tests {
		got, err := Param([]byte("kept "), tt.query, "id")
		if !errors.Is(err, tt.err) || err == nil && string(got) != "kept "+tt.want {
			t.Errorf("Param(%q) = %q, %v, want %q, %v", tt.query, got, err, "kept "+tt.want, tt.err)
		}
	}
}

func TestParamAllocatesNothing(t *testing.T) {
	buffer := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { _, _ = Param(buffer, "x=%20&id=a%20b", "id") }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// FuzzParam compares Param with net/url, which has the same syntax except for ";".
func FuzzParam(f *testing.F) {
	for _, query := range []string{"id=a", "id=a&id=b", "x=%2&id=1", "%69d=+", "id=%C3%BC&&=", "id", "=id"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if strings.Contains(query, ";") {
			t.Skip("net/url rejects semicolons")
		}
		got, err := Param(nil, query, "id")
		values, wantErr := url.ParseQuery(query)
		switch {
		case wantErr != nil:
			if err == nil {
				t.Errorf("%q: no error, net/url has %v", query, wantErr)
			}
		case len(values["id"]) != 1:
			if err == nil {
				t.Errorf("%q: no error, net/url has %d values", query, len(values["id"]))
			}
		case err != nil || string(got) != values["id"][0]:
			t.Errorf("%q: %q, %v, net/url has %q", query, got, err, values["id"][0])
		}
	})
}
