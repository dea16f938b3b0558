"""Servers (Compute API v2.1): desired state in kv under ``servers/``, made true by the agent.

flavors   the one table of sizes
records   what is stored, and Nova's words for it
store     records in kv
agent     kv -> hypervisor, level-triggered; one worker of the cloud runs it, under a lease
api       routes: create, list, show, delete, start, stop, reboot, console log; flavors; volume attachments
"""
