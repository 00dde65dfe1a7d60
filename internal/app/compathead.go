package app

// compatHead is what docs/compat.md says before its generated tables.
const compatHead = `# What is served

Generated from the dispatch table by ` + "`make generate`" + `; ` + "`make lint`" + ` fails when it is stale. Methods are named by v1beta1; v1 is served by the same
rows. What is not served answers UNIMPLEMENTED (501 over REST) and names the method.
`
