package conversion

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// FuzzReview expects an answer or an error to whatever arrives; an answer holds all objects in the version that was asked for, or none and why.
func FuzzReview(f *testing.F) {
	r, err := NewRegistry(lamps())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"request":{"uid":"u","desiredAPIVersion":"example.com/v2","objects":[{"apiVersion":"example.com/v1","kind":"Lamp","metadata":{"name":"l"},"spec":{"colour":"red","watts":5}}]}}`))
	f.Add([]byte(`{"request":{"desiredAPIVersion":"v2","objects":[{"kind":"List","items":[null]},null]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		request, err := http.NewRequest(http.MethodPost, "https://"+Host+"/", bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := r.RoundTrip(request)
		if err != nil {
			return
		}
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		var asked, said apiextensionsv1.ConversionReview
		if err := json.Unmarshal(text, &said); err != nil || said.Response == nil {
			t.Fatalf("%s: %v", text, err)
		}
		if err := json.Unmarshal(data, &asked); err != nil {
			t.Fatal(err)
		}
		got := said.Response
		if good := got.Result.Status == "Success"; good && len(got.ConvertedObjects) != len(asked.Request.Objects) || !good && (len(got.ConvertedObjects) > 0 || got.Result.Message == "") {
			t.Errorf("%s", text)
		}
		for _, o := range got.ConvertedObjects {
			var head struct{ APIVersion string }
			if err := json.Unmarshal(o.Raw, &head); err != nil || head.APIVersion != asked.Request.DesiredAPIVersion {
				t.Errorf("%s is not of %s: %v", o.Raw, asked.Request.DesiredAPIVersion, err)
			}
		}
	})
}
