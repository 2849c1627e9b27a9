#!/bin/sh
cat <<END
--bootbundle-00000000000000000000000000000000
Content-Type: text/x-evil

--bootbundle-00000000000000000000000000000000--
END
