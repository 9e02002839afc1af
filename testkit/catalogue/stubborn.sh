# Three generations that do not listen to SIGTERM; each writes its process id down.
trap '' TERM
folder=$1 key=$2
echo "$$" >> "$folder/$key"
sh -c 'trap "" TERM; echo $$ >> "$0"; while :; do sleep 1; done' "$folder/$key" &
setsid sh -c 'trap "" TERM; echo $$ >> "$0"; (trap "" TERM; while :; do sleep 1; done) & while :; do sleep 1; done' "$folder/$key" &
echo "here to stay"
while :; do sleep 1; done
