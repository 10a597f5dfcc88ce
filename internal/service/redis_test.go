package service

import (
	"strings"
	"testing"
)

func TestRedisSettings(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		want string // part of the error, "" for none
	}{
		{"defaults", nil, ""},
		{"several addresses", map[string]string{"REDIS_ADDR": "a:1, b:2"}, ""},
		{"IPv6", map[string]string{"REDIS_ADDR": "[::1]:6379"}, ""},
		{"no port", map[string]string{"REDIS_ADDR": "redis"}, `"redis" is no address`},
		{"bad port", map[string]string{"REDIS_ADDR": "redis:99999"}, `"redis:99999" is no address`},
		{"port 0", map[string]string{"REDIS_ADDR": "redis:0"}, "is no address"},
		{"no host", map[string]string{"REDIS_ADDR": ":6379"}, "is no address"},
		{"empty list", map[string]string{"REDIS_ADDR": " , "}, "the list is empty"},
		{"a URL", map[string]string{"REDIS_ADDR": "redis://x:6379"}, "is no address"},
		{"negative database", map[string]string{"REDIS_DB": "-1"}, "numbered from 0"},
		{"database of a cluster", map[string]string{"REDIS_DB": "1", "REDIS_ADDR": "a:1,b:2"}, "has database 0 only"},
		{"user without password", map[string]string{"REDIS_USERNAME": "u"}, "set both"},
		{"user and password", map[string]string{"REDIS_USERNAME": "u", "REDIS_PASSWORD": "p"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r Redis
			s := NewSettings("test", func(name string) string { return tt.env[name] })
			r.Register(s)
			err := s.Parse(nil)
			if err == nil {
				err = r.Validate()
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
