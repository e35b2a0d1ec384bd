// SPDX-License-Identifier: Apache-2.0

//go:build race

package soak

func init() { buildFlags = []string{"-race"} }
