"""Which image is in which part: by content, whole groups, stratified, stable when data are added."""
