package httpkit

import (
	"errors"
	"strings"
)

// Errors of Param. Their texts continue a sentence that begins with the parameter.
var (
	errNoParam     = errors.New("is missing: send it once")
	errManyParams  = errors.New("is present more than once: send it once")
	errParamEscape = errors.New(`cannot be decoded: the query has a "%" that two hexadecimal digits do not follow`)
)

// Param appends the value of the parameter name to dst. The query must contain that parameter exactly once.
// It is decoded like an HTML form: "&" separates parameters, "+" is a space, and there are %-escapes. Other
// parameters are ignored, but their escapes must be valid too. ";" is an ordinary character.
func Param(dst []byte, query, name string) ([]byte, error) {
	var err error
	found := false
	var scratch [64]byte
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		same := key == name
		if !same && strings.ContainsAny(key, "%+") {
			k, err := appendUnescaped(scratch[:0], key)
			if err != nil {
				return dst, err
			}
			same = string(k) == name
		}
		switch {
		case !same:
			if _, err := appendUnescaped(scratch[:0], value); err != nil {
				return dst, err
			}
			continue
		case found:
			return dst, errManyParams
		}
		found = true
		if dst, err = appendUnescaped(dst, value); err != nil {
			return dst, err
		}
	}
	if !found {
		return dst, errNoParam
	}
	return dst, nil
}

// EachParam calls f for every parameter of a query, in order, decoded as by Param. It stops at the first error, and returns
// one if the query has an invalid escape.
func EachParam(query string, f func(name, value string) error) error {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		n, err := appendUnescaped(nil, name)
		if err != nil {
			return err
		}
		v, err := appendUnescaped(nil, value)
		if err != nil {
			return err
		}
		if err := f(string(n), string(v)); err != nil {
			return err
		}
	}
	return nil
}

func appendUnescaped(dst []byte, s string) ([]byte, error) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if i+2 >= len(s) || unhex[s[i+1]] == 0 || unhex[s[i+2]] == 0 {
				return dst, errParamEscape
			}
			c = (unhex[s[i+1]]-1)<<4 | (unhex[s[i+2]] - 1)
			i += 2
		}
		dst = append(dst, c)
	}
	return dst, nil
}

// unhex maps a hexadecimal digit to its value plus 1, and every other byte to 0.
var unhex = func() (t [256]byte) {
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i) + 1
	}
	for i, c := range []byte("ABCDEF") {
		t[c] = byte(i) + 11
	}
	return t
}()
