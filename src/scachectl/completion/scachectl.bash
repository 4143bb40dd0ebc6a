# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for scachectl(1)

_scachectl() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= i
        local -A options=(
                [status]='--json --control= --socket= --timeout='
                [list]='--json --control= --socket= --timeout= --user= --endpoint= --destination= --bindings'
                [flush]='--json --control= --socket= --timeout= --user= --endpoint= --destination='
                [top]='--json --control= --socket= --timeout= --user= --by= --interval= --count='
                [metrics]='--json --control= --socket= --timeout= --format= --output='
                [watch]='--json --control= --socket= --timeout= --interval= --count='
                [save-endp]='--native= --socket= --timeout= --legacy --epoch= --ttl= --property= --farewell= --fd='
                [save-dest]='--native= --socket= --timeout= --legacy --epoch= --ttl= --property='
                [find-endp]='--native= --socket= --timeout= --legacy --epoch='
                [find-dest]='--native= --socket= --timeout= --legacy --epoch='
                [postfix]='--config-directory= --timeout='
                [fleet]='--output= --destinations= --self= --transport= --port='
        )

        COMPREPLY=()
        # After "--", the words are those of another command.
        for ((i = 1; i < COMP_CWORD; i++)); do
                if [[ ${COMP_WORDS[i]} == -- ]]; then
                        if declare -F _command_offset >/dev/null; then
                                _command_offset $((i + 1))
                        else
                                mapfile -t COMPREPLY < <(compgen -c -- "$cur")
                        fi
                        return
                fi
                # The shell takes "--socket=/run" as three words.
                if [[ -z $command && ${COMP_WORDS[i]} != [-=]* && ${COMP_WORDS[i - 1]} != = ]]; then
                        command=${COMP_WORDS[i]}
                fi
        done

        [[ $cur == = ]] && cur=
        [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD - 2]}
        case $prev in
        --control | --destinations | --native | --output | --socket)
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return
                ;;
        --config-directory)
                mapfile -t COMPREPLY < <(compgen -d -- "$cur")
                return
                ;;
        --format)
                mapfile -t COMPREPLY < <(compgen -W "openmetrics prometheus" -- "$cur")
                return
                ;;
        --self)
                mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur")
                return
                ;;
        --by)
                mapfile -t COMPREPLY < <(compgen -W "lookups misses parked" -- "$cur")
                return
                ;;
        --user)
                mapfile -t COMPREPLY < <(compgen -u -- "$cur")
                return
                ;;
        esac

        if [[ -z $command ]]; then
                mapfile -t COMPREPLY < <(compgen -W "${!options[*]} help --help --version" -- "$cur")
        elif [[ $command == help ]]; then
                mapfile -t COMPREPLY < <(compgen -W "${!options[*]}" -- "$cur")
        elif [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "${options[$command]-} --help" -- "$cur")
                [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
        elif [[ $command == postfix ]]; then
                mapfile -t COMPREPLY < <(compgen -W "enable disable" -- "$cur")
        elif [[ $command == fleet ]]; then
                mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur")
        elif [[ $command == find-* && $COMP_CWORD -ge 3 ]]; then
                COMPREPLY=(--)
        fi
}

complete -F _scachectl scachectl
