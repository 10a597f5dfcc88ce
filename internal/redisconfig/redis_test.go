package redisconfig

import (
	"strings"
	"testing"

	"heavy-read-api/internal/daemon"
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
		{"no port", map[string]string{"REDIS_ADDR": "redis"}, `"redis" is not an address`},
		{"bad port", map[string]string{"REDIS_ADDR": "redis:99999"}, `"redis:99999" is not an address`},
		{"port 0", map[string]string{"REDIS_ADDR": "redis:0"}, "is not an address"},
		{"no host", map[string]string{"REDIS_ADDR": ":6379"}, "is not an address"},
		{"empty list", map[string]string{"REDIS_ADDR": " , "}, "the list is empty"},
		{"a URL", map[string]string{"REDIS_ADDR": "rediss://u:p@x:6379/2"}, ""},
		{"a URL among others", map[string]string{"REDIS_ADDR": "redis://x:6379,y:6379"}, "host:port"},
		{"another URL", map[string]string{"REDIS_ADDR": "http://:secret@x:6379"}, "scheme"},
		{"a socket", map[string]string{"REDIS_ADDR": "/run/redis.sock"}, ""},
		{"a socket's URL", map[string]string{"REDIS_ADDR": "unix:///run/redis.sock"}, ""},
		{"Sentinels", map[string]string{"REDIS_ADDR": "a:1,b:1", "REDIS_MASTER_NAME": "posts", "REDIS_DB": "1"}, ""},
		{"Sentinel password without Sentinels", map[string]string{"REDIS_SENTINEL_PASSWORD": "x"}, "REDIS_MASTER_NAME"},
		{"TLS", map[string]string{"REDIS_TLS": "true", "REDIS_TLS_SERVER_NAME": "redis"}, ""},
		{"TLS files without TLS", map[string]string{"REDIS_TLS_CA_FILE": "/ca.pem"}, "REDIS_TLS=true"},
		{"missing file", map[string]string{"REDIS_TLS": "true", "REDIS_TLS_CA_FILE": "/nowhere/ca.pem"}, "/nowhere/ca.pem"},
		{"negative database", map[string]string{"REDIS_DB": "-1"}, "numbered from 0"},
		{"database of a cluster", map[string]string{"REDIS_DB": "1", "REDIS_ADDR": "a:1,b:2"}, "has database 0 only"},
		{"user without password", map[string]string{"REDIS_USERNAME": "u"}, "set both"},
		{"namespace", map[string]string{"CACHE_NAMESPACE": "a{b}"}, "CACHE_NAMESPACE: namespace"},
		{"user and password", map[string]string{"REDIS_USERNAME": "u", "REDIS_PASSWORD": "p"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r Redis
			s := daemon.NewSettings("test", func(name string) string { return tt.env[name] })
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
