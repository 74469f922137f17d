package kernel

import "testing"

// FuzzMAC wants that an address which is read is written and read as the same.
func FuzzMAC(f *testing.F) {
	for _, text := range []string{"", "02:42:0a:05:07:02", "02-42-0A-05-07-02", "0242.0a05.0702", "02:42:0a:05:07", "02:00:5e:10:00:00:00:01"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var m, again MAC
		if m.UnmarshalText([]byte(text)) != nil {
			return
		}
		written, err := m.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText(written); err != nil || again != m {
			t.Errorf("%q is %s and then %s: %v", text, m, again, err)
		}
	})
}
