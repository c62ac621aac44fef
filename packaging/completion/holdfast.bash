# bash completion for holdfast(1)                                          -*- shell-script -*-

_holdfast()
{
    local commands="serve check-config fsck migrate backup restore import upgrade version help"
    local settings="--config
        --listen --data --metadata --blobs --read-only
        --access-anonymous --access-anonymous-push-anywhere
        --tls-certificate --tls-key --tls-client-ca --tls-client-auth
        --database-connections --database-patience
        --s3-endpoint --s3-region --s3-addressing --s3-ca --s3-access-key --s3-secret-key
        --s3-encryption --s3-encryption-key --s3-part-size --s3-patience
        --redirect-enabled --redirect-expire --redirect-url
        --cache-size --cluster-lease
        --proxy-trusted
        --http-location --http-threads --http-workers --http-queue
        --limits-connections --limits-connections-per-address --limits-uploads --limits-manifest
        --timeouts-header --timeouts-idle --timeouts-body --timeouts-shutdown
        --uploads-expire
        --log-format --log-level --log-access"
    local word=${COMP_WORDS[COMP_CWORD]} before="" words="" assigned=""
    COMPREPLY=()
    ((COMP_CWORD > 0)) && before=${COMP_WORDS[COMP_CWORD - 1]}

    # A flag, "=" and its value come as three words: bash cuts there.
    if [[ $word == "=" ]]; then
        word="" assigned=yes
    elif [[ $before == "=" ]] && ((COMP_CWORD > 1)); then
        before=${COMP_WORDS[COMP_CWORD - 2]} assigned=yes
    fi

    case $before in
        --config | --tls-certificate | --tls-key | --tls-client-ca | --s3-ca)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return ;;
        --from | --to)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return ;;
        --data)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return ;;
        --access-anonymous) words="none pull push" ;;
        --s3-addressing) words="auto path host" ;;
        --s3-encryption) words="none AES256 aws:kms" ;;
        --tls-client-auth) words="none optional required" ;;
        --http-location) words="relative absolute" ;;
        --log-format) words="auto text json" ;;
        --log-level) words="debug info warn error" ;;
        --access-anonymous-push-anywhere) [[ $assigned ]] && words="true false" ;;
        --read-only) [[ $assigned ]] && words="true false" ;;
        --redirect-enabled) [[ $assigned ]] && words="true false" ;;
        --log-access) [[ $assigned ]] && words="true false" ;;
        --repair | --deep | --metadata-only | --list | --verify | --overwrite | --dry-run | --insecure-http) ;;
        --*) return ;; # a number, a size, a time or an address
    esac

    if [[ -z $words ]]; then
        if ((COMP_CWORD == 1)); then
            words=$commands
        else
            case ${COMP_WORDS[1]} in
                serve | check-config | upgrade) words=$settings ;;
                fsck) words="--repair --deep $settings" ;;
                migrate) words="--from --to --threads --verify" ;;
                backup) words="--to --metadata-only --list --verify --prune --threads $settings" ;;
                restore) words="--from --at --overwrite --threads $settings" ;;
                import) words="--repository --name --prefix --jobs --overwrite --dry-run --username
                    --password-file --password-env --docker-config --ca --insecure-http $settings" ;;
                help) ((COMP_CWORD == 2)) && words=$commands ;;
            esac
        fi
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _holdfast holdfast
