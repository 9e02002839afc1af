# A character torn in two between writes, and bytes that are no text.
printf 'gr\303'
sleep 0.3
printf '\274n \342\202'
sleep 0.3
printf '\254 bad:\377:\n'
