# Why this system is not one of those that were tried, by its name; empty where it is.
unsupported=$(
  . /etc/os-release
  case "${ID:-}" in
    debian) oldest=12 ;;
    ubuntu) oldest=24 ;;
    *) oldest=none ;;
  esac
  version=${VERSION_ID:-0}
  if [ "$oldest" = none ] || [ "${version%%.*}" -lt "$oldest" ]; then
    echo "${PRETTY_NAME:-${ID:-this system}} is not supported: a machine must be Debian 12, Ubuntu 24.04 or later"
  fi
)
