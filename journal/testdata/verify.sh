#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# verify.sh DIRECTORY: checks a journal with nothing but a shell and sha256sum.
# It prints the hash of the newest record, or the first record that is wrong.
set -eu
cd "$1"
first=$(ls ./*.jsonl | head -n 1)
n=$(($(basename "$first" .jsonl | sed 's/^0*//') - 1))
prev=0000000000000000000000000000000000000000000000000000000000000000
if [ $n -gt 0 ]; then # what was before it has been removed
	prev=$(head -n 1 "$first" | sed 's/.*,"prev":"\([0-9a-f]*\)".*/\1/')
fi
for segment in *.jsonl; do
	while IFS= read -r line; do
		n=$((n + 1))
		body=${line%,\"hash\":\"*}
		hash=$(printf %s "$body" | sha256sum | cut -c 1-64)
		case $body in
		"{\"seq\":$n,"*",\"prev\":\"$prev\"") ;;
		*) echo "$segment: record $n does not follow from the one before it"; exit 1 ;;
		esac
		if [ "$line" != "$body,\"hash\":\"$hash\"}" ]; then
			echo "$segment: record $n does not match its hash"; exit 1
		fi
		prev=$hash
	done <"$segment"
done
echo "$prev"
