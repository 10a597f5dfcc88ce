package protocol

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// A head in a log is no Go struct.
func TestHeadInALog(t *testing.T) {
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "watermark", Head{Epoch: 0xab, Version: 12, WriteID: 0xcd})
	const want = "watermark.epoch=00000000000000ab watermark.version=12 watermark.write_id=00000000000000cd\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
