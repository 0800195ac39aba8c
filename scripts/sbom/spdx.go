package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// The fields are those of SPDX 2.3, https://spdx.github.io/spdx-spec/v2.3.
type spdx struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name          string     `json:"name"`
	ID            string     `json:"SPDXID"`
	Version       string     `json:"versionInfo"`
	Download      string     `json:"downloadLocation"`
	FilesAnalyzed bool       `json:"filesAnalyzed"`
	Checksums     []checksum `json:"checksums,omitempty"`
	Refs          []ref      `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type ref struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	documentID = "SPDXRef-DOCUMENT"
	programID  = "SPDXRef-kedge"
	noAnswer   = "NOASSERTION"
)

// document is the SPDX text for a program with the given checksum and parts.
func document(file, version, created, sum string, parts []part) ([]byte, error) {
	d := spdx{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: documentID, Name: file + " " + version,
		Namespace: "https://github.com/kedge-io/kedge/sbom/" + file + "-" + sum,
		Creation:  creation{Created: created, Creators: []string{"Tool: kedge-sbom", "Organization: kedge"}},
		Packages: []spdxPackage{{
			Name: "kedge", ID: programID, Version: version, Download: noAnswer,
			Checksums: []checksum{{Algorithm: "SHA256", Value: sum}},
		}},
		Relationships: []relationship{{documentID, "DESCRIBES", programID}},
	}
	for i, p := range parts {
		id := fmt.Sprintf("SPDXRef-part-%d", i+1)
		d.Packages = append(d.Packages, spdxPackage{
			Name: p.name, ID: id, Version: p.version, Download: noAnswer,
			Refs: []ref{{Category: "PACKAGE-MANAGER", Type: "purl", Locator: p.purl}},
		})
		d.Relationships = append(d.Relationships, relationship{programID, "CONTAINS", id})
	}
	data, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode SBOM: %w", err)
	}
	return append(data, '\n'), nil
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
