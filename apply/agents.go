// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An Agent is what runs on one switch: an object of agents.agent.githedgehog.com,
// into whose spec Hedgehog's controller puts all that the switch is to be.
type Agent struct {
	Name       string // of the switch
	Generation int64  // of the spec
	Applied    int64  // the generation that the switch was last configured by; 0 for none
}

// asTable asks for the columns that kubectl shows: an Agent holds all of a
// switch's configuration and state, some 100 KiB
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables).
const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

// Agents lists the agents in the configured namespace, by name. There are none
// where the cluster does not know of them, or does not let us look.
func (c *Cluster) Agents(ctx context.Context) ([]Agent, error) {
	conn, err := c.connection()
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, conn.readLimit)
	defer cancel()
	data, err := conn.raw.Get().AbsPath("/apis/agent.githedgehog.com/v1beta1/namespaces", c.cfg.Namespace, "agents").
		SetHeader("Accept", asTable).Param("includeObject", string(metav1.IncludeNone)).DoRaw(limited)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, conn.asking(ctx, "its agents", err)
	}
	var table struct {
		ColumnDefinitions []struct{ Name string }
		Rows              []struct{ Cells []json.RawMessage }
	}
	if err := json.Unmarshal(data, &table); err != nil {
		return nil, fmt.Errorf("asking cluster %s for its agents: %w", conn.server, err)
	}
	column := map[string]int{}
	for i, d := range table.ColumnDefinitions {
		column[d.Name] = i
	}
	var agents []Agent
	for _, row := range table.Rows {
		var a Agent
		for name, into := range map[string]any{"Name": &a.Name, "CurrentG": &a.Generation, "AppliedG": &a.Applied} {
			i, ok := column[name]
			if !ok || i >= len(row.Cells) {
				return nil, nil // agents of a version that does not tell
			}
			if err := json.Unmarshal(row.Cells[i], into); err != nil {
				return nil, fmt.Errorf("asking cluster %s for its agents: column %s: %w", conn.server, name, err)
			}
		}
		agents = append(agents, a)
	}
	slices.SortFunc(agents, func(a, b Agent) int { return cmp.Compare(a.Name, b.Name) })
	return agents, nil
}
