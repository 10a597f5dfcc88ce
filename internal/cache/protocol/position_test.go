package protocol

import "testing"

func TestPosition(t *testing.T) {
	at := Head{Epoch: 0xab, Version: 12, WriteID: 0xcd}
	for text, p := range map[string]Position{
		"00000000000000ab-12.00000000000000cd":                      {Head: at},
		"00000000000000ab-12.00000000000000cd~340.ffffffffffffffff": {Head: at, Ahead: Head{Epoch: 0xab, Version: 340, WriteID: 1<<64 - 1}},
	} {
		if got := p.String(); got != text {
			t.Errorf("%s, want %s", got, text)
		}
		if got, err := ParsePosition(text); err != nil || got != p {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if got, err := ParseToken(text); err != nil || got != at.Token() {
			t.Errorf("the token in %s: %v, %v", text, got, err)
		}
		for end := range len(text) {
			cut := text[:end]
			if got, err := ParsePosition(cut); err == nil && got.String() == text {
				t.Errorf("%q gave the whole position", cut)
			}
		}
	}
	if got, err := ParsePosition("00000000000000ab-12"); err != nil || got != (Position{Head: Head{Epoch: 0xab, Version: 12}}) {
		t.Errorf("a token: %+v, %v", got, err)
	}
	// Ahead is written only while it is ahead.
	if got := (Position{Head: at, Ahead: at}).String(); got != "00000000000000ab-12.00000000000000cd" {
		t.Error(got)
	}
	for _, bad := range []string{"", "-", ".", "~", "ab-12", "00000000000000ab-", "00000000000000ab-x",
		"00000000000000ab-12.", "00000000000000ab-12.cd", "00000000000000ab-12.00000000000000cg", "00000000000000ab-12.00000000000000cd.",
		"00000000000000ab-12~13.00000000000000cd", "00000000000000ab-12.00000000000000cd~", "00000000000000ab-12.00000000000000cd~13",
		"00000000000000ab-12.00000000000000cd~13.", "00000000000000ab-12.00000000000000cd~12.00000000000000ce", "00000000000000ab-12.00000000000000cd~-13.00000000000000ce",
		"00000000000000ab-12.00000000000000cd~13.00000000000000ce~14.00000000000000cf", "00000000000000ab-12.+0000000000000cd"} {
		if got, err := ParsePosition(bad); err == nil {
			t.Errorf("%q gave %+v", bad, got)
		}
	}
}
