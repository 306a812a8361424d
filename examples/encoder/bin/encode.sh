#!/bin/sh
# Encodes a test picture with FFmpeg. What FFmpeg writes of its progress becomes
# ours: `perdure worker --ffmpeg` reads it. Without FFmpeg a loop takes its place.
set -eu
PERDURE=${PERDURE_BIN:-perdure}

# key KEY DEFAULT: a value of the metadata. Run by hand there are none.
key() { "$PERDURE" metadata "$1" 2>/dev/null || echo "$2"; }
output=$(key output /tmp/encoded.mp4)
seconds=$(key seconds 20)
size=$(key width 640)x$(key height 360)

"$PERDURE" emit -q encode.begun

if command -v ffmpeg >/dev/null; then
	# -re: as fast as it is played, so that there is something to see.
	"$PERDURE" worker --ffmpeg --total "$seconds" -- \
		ffmpeg -nostdin -hide_banner -re -f lavfi -i "testsrc2=size=$size:rate=25:duration=$seconds" -y "$output"
else
	echo "ffmpeg is missing (Debian: apt install ffmpeg): this only counts" >&2
	"$PERDURE" worker --progress '^frame (?P<value>\d+) of (?P<total>\d+)' -- \
		sh -c 'n=0; while [ "$n" -lt "$1" ]; do n=$((n + 1)); echo "frame $n of $1"; sleep 1; done; echo counted >"$2"' sh "$seconds" "$output"
fi

"$PERDURE" emit -q encode.done "{\"output\":\"$output\",\"bytes\":$(wc -c <"$output")}"
"$PERDURE" progress -q 100 done
