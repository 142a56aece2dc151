# Puts what scripts/setup has brought (Node.js, cargo-nextest) first on PATH. To be sourced, from any folder, by bash:
#
#   . scripts/env.sh
_home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for _bin in "$_home/target/tools/bin" "$_home/target/node/bin"; do
    case ":$PATH:" in
        *":$_bin:"*) ;;
        *) PATH=$_bin:$PATH ;;
    esac
done
export PATH
unset _home _bin
