"""Images (Image API v2): records in kv under ``images/``; the bytes are immutable objects that blockgw keeps.

records   what is stored, and how the API shows it
api       routes: create, list, show, patch, delete, upload, download, import
agent     imports that were asked for: a server-side copy of an object
"""
