package conversion

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	// Host is the address that stands for this process in a CustomResourceDefinition's clientConfig.url.
	Host = "conversion.kedge.internal"
	// maxReview bounds a review in bytes: a list of objects, each below the 3 MiB that the API server takes.
	maxReview = 256 << 20
)

// RoundTrip answers a ConversionReview (apiextensions.k8s.io/v1) without a network. It implements http.RoundTripper: the API
// server uses it as the transport of requests to Host.
func (r *Registry) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil {
		return nil, fmt.Errorf("conversion review without a body")
	}
	defer req.Body.Close()
	data, err := io.ReadAll(io.LimitReader(req.Body, maxReview+1))
	if err != nil {
		return nil, fmt.Errorf("read conversion review: %w", err)
	}
	if len(data) > maxReview {
		return nil, fmt.Errorf("conversion review is larger than %d bytes", maxReview)
	}
	var review apiextensionsv1.ConversionReview
	if err := json.Unmarshal(data, &review); err != nil {
		return nil, fmt.Errorf("read conversion review: %w", err)
	}
	if review.Request == nil {
		return nil, errors.New("read conversion review: not of apiextensions.k8s.io/v1")
	}
	review.Response, review.Request = r.review(review.Request), nil
	if data, err = json.Marshal(review); err != nil {
		return nil, fmt.Errorf("write conversion review: %w", err)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {"application/json"}, "Content-Length": {strconv.Itoa(len(data))}},
		ContentLength: int64(len(data)), Body: io.NopCloser(bytes.NewReader(data)), Request: req,
	}, nil
}

// review converts all objects of a request, or none.
func (r *Registry) review(request *apiextensionsv1.ConversionRequest) *apiextensionsv1.ConversionResponse {
	out := &apiextensionsv1.ConversionResponse{UID: request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
	for _, raw := range request.Objects {
		converted, err := r.convertRaw(raw.Raw, request.DesiredAPIVersion)
		if err != nil {
			out.ConvertedObjects = nil
			out.Result = metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
			return out
		}
		out.ConvertedObjects = append(out.ConvertedObjects, runtime.RawExtension{Raw: converted})
	}
	return out
}

func (r *Registry) convertRaw(raw []byte, apiVersion string) ([]byte, error) {
	var obj unstructured.Unstructured
	if err := obj.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	converted, err := r.Convert(&obj, apiVersion)
	if err != nil {
		return nil, err
	}
	return converted.MarshalJSON()
}
