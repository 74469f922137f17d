// Package e2e holds the tests on real Docker engines, 20.10 and 28.5: the
// plugin as people install it, the commands as people type them. They need
// root, what scripts/lab-setup makes and build/plugin, and carry the build tag
// lab.
package e2e
